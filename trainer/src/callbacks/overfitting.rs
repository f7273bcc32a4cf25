//! Warns, once for every best evaluation, where what is learned no longer helps with other pieces.
use crate::Result;
use crate::callback::Callback;
use crate::event::TrainEvent;
use crate::objective::Objective;
use crate::training::{Evaluation, Training};

/// Evaluations without a better loss that are called overfitting, where `early_stopping` does not say how many.
const PATIENCE: u64 = 5;

pub(crate) struct Overfitting;

impl<O: Objective> Callback<O> for Overfitting {
    fn after_evaluation(&mut self, training: &mut Training<O>, evaluation: &Evaluation) -> Result<()> {
        let history = &training.state.evaluations;
        let (train_now, patience) = (history.train_loss, training.settings.early_stopping.unwrap_or(PATIENCE));
        let (Some(now), Some(best), Some(train_best)) =
            (evaluation.loss, history.best_eval_loss, history.best_train_loss)
        else {
            return Ok(());
        };
        if history.without_better != patience || train_now >= train_best {
            return Ok(());
        }
        let (epoch, best_epoch) = (training.state.position.current_epoch(), history.best_epoch);
        let message = format!(
            "overfitting: no better eval loss in {patience} evaluations, {best:.4} in epoch {best_epoch} and {now:.4} in epoch \
             {epoch}, while the training loss fell from {train_best:.4} to {train_now:.4}; the weights of epoch {best_epoch} \
             are the best"
        );
        training.telemetry.event(&TrainEvent::Warning { step: training.state.position.step, message })
    }
}
