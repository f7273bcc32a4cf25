//! What a training tells of itself while it runs.
use crate::GradientExchange;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Something that happened in a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent {
    /// The training begins, or resumes.
    Started {
        /// Pieces trained on.
        train_pieces: usize,
        /// Pieces evaluated on.
        eval_pieces: usize,
        /// Optimizer steps an epoch.
        steps_per_epoch: u64,
        /// Optimizer steps in all.
        total_steps: u64,
        /// Steps done before.
        resumed_from: u64,
    },
    /// Optimizer steps were taken.
    Step {
        /// Steps done.
        step: u64,
        /// Epoch, counted from 1.
        epoch: u64,
        /// Mean loss since the last such event, in nats a character.
        loss: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Norm of the gradients before clipping.
        grad_norm: f64,
        /// Loss scale; 1 without loss scaling.
        scale: f64,
        /// Patches a second since the last such event: of steps alone, without evaluations and checkpoints.
        patches_per_second: f64,
        /// Predicted characters a second since then.
        tokens_per_second: f64,
        /// Model FLOPs utilisation since then: the share used of the devices' peak (`Settings::peak`).
        mfu: Option<f64>,
        /// The share of the time since then in which a step waited for its batch.
        data_wait: f64,
        /// Memory in use now, in bytes: of the device, or of the process on a CPU.
        memory: u64,
        /// The most that was in use since the process began.
        memory_peak: u64,
        /// Steps skipped so far.
        skipped: u64,
        /// Seconds of training, interruptions left out.
        seconds: f64,
        /// The objective's other numbers: means since the last such event.
        #[serde(flatten)]
        values: BTreeMap<String, f64>,
    },
    /// How the gradients of a step were exchanged between ranks: of the first step that is logged, alone.
    Exchange {
        /// The step.
        step: u64,
        /// How.
        #[serde(flatten)]
        exchange: GradientExchange,
    },
    /// Something that a person should know.
    Warning {
        /// Steps done.
        step: u64,
        /// What.
        message: String,
    },
    /// A Chrome trace of some steps was written.
    Profiled {
        /// Steps done.
        step: u64,
        /// Where it is.
        path: PathBuf,
    },
    /// Work before the first step: the reference's log-probabilities, for CLaMP-DPO.
    Reference {
        /// Pieces done.
        done: usize,
        /// Pieces in all.
        total: usize,
    },
    /// A step was skipped: its loss or gradient was not finite.
    Skipped {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
    },
    /// The weights were evaluated.
    Evaluated {
        /// Steps done.
        step: u64,
        /// Epochs begun.
        epoch: u64,
        /// Mean training loss since the last evaluation.
        train_loss: f64,
        /// Mean loss over the characters of the evaluation pieces.
        eval_loss: f64,
        /// Whether it is the best so far.
        best: bool,
        /// The epoch of the best so far.
        best_epoch: u64,
        /// Seconds of training, interruptions left out.
        seconds: f64,
    },
    /// A checkpoint was handed to the writer.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Where it goes.
        path: PathBuf,
    },
    /// As many evaluations as `early_stopping` allows had no better loss.
    StoppedEarly {
        /// Steps done.
        step: u64,
        /// The best epoch.
        best_epoch: u64,
    },
}

/// Watches a training.
pub trait Observer {
    /// Something happened. On rank 0 alone.
    fn event(&mut self, event: &TrainEvent);

    /// An epoch, counted from 1, is over and evaluated. On rank 0 alone; the others wait, however long this takes. Its time
    /// does not count as the training's. A training that goes on after an epoch may tell of it again.
    fn epoch(&mut self, epoch: u64) {
        let _ = epoch;
    }
}

/// Nobody.
impl Observer for () {
    fn event(&mut self, _: &TrainEvent) {}
}
