//! How a training ends.
use crate::TrainState;
use crate::checkpoint::{best_path, step_path};
use std::path::{Path, PathBuf};

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<R = TrainReport> {
    /// It is complete.
    Finished(R),
    /// It was told to stop, and saved.
    Interrupted,
}

/// What a complete training gave.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TrainReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps skipped because a gradient was not finite.
    pub skipped: u64,
    /// Epochs begun.
    pub epochs: u64,
    /// The epoch with the lowest evaluation loss.
    pub best_epoch: u64,
    /// The lowest evaluation loss.
    pub best_eval_loss: Option<f64>,
    /// The evaluation loss at the end.
    pub final_eval_loss: Option<f64>,
    /// Mean training loss between the last two evaluations.
    pub train_loss: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Patches trained on.
    pub patches: u64,
    /// The file of the weights with the lowest evaluation loss.
    pub best: PathBuf,
    /// The checkpoint at the end.
    pub last: PathBuf,
}

impl TrainReport {
    /// Of a training whose checkpoints are in a folder.
    pub(crate) fn of(state: &TrainState, checkpoints: &Path) -> TrainReport {
        let TrainState { position, evaluations, .. } = state;
        TrainReport {
            steps: position.step,
            skipped: position.skipped,
            epochs: position.current_epoch(),
            best_epoch: evaluations.best_epoch,
            best_eval_loss: evaluations.best_eval_loss,
            final_eval_loss: evaluations.eval_loss,
            train_loss: evaluations.train_loss,
            seconds: state.seconds,
            patches: state.patches,
            best: best_path(checkpoints),
            last: step_path(checkpoints, position.step),
        }
    }
}
