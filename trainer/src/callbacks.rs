//! What a training does beside its steps: callbacks with one trait.
use crate::checkpoint::best_path;
use crate::training::{End, Evaluation, Training};
use crate::{Objective, Result, TrainEvent};
use std::sync::atomic::Ordering;
use torch_ext::ProfiledTurns;

/// Something that happens at certain moments of a training: all ranks call it, in the same order.
///
/// What it has to remember over an interruption is in [`Training::state`].
pub(crate) trait Callback<O: Objective> {
    /// A step has begun. Its numbers are on the device: reading them waits for it.
    fn after_step(&mut self, _: &mut Training<O>) -> Result<()> {
        Ok(())
    }

    /// The weights were evaluated.
    fn after_evaluation(&mut self, _: &mut Training<O>, _: &Evaluation) -> Result<()> {
        Ok(())
    }

    /// An epoch is over, and evaluated where that is due. A training that resumes at the end of an epoch calls this again.
    fn after_epoch(&mut self, _: &mut Training<O>) -> Result<()> {
        Ok(())
    }

    /// Whether the training shall end before its last step.
    fn ends_early(&self, _: &Training<O>) -> bool {
        false
    }

    /// Nothing is due any more. The next step comes, or, if there is one, the end.
    fn before_step(&mut self, _: &mut Training<O>, _: Option<End>) -> Result<()> {
        Ok(())
    }
}

/// Saves the training as often as asked and at its end, and the best weights.
pub(crate) struct Checkpointing {
    /// The step of the last checkpoint.
    pub(crate) saved: u64,
}

impl Checkpointing {
    fn save<O: Objective>(&mut self, training: &mut Training<O>) -> Result<()> {
        training.read_numbers()?;
        training.settings.ranks.check_weights(training.network)?;
        let state = training.state_now();
        let path = training.checkpoints.save(training.network, &training.optimizer, &state, training.settings)?;
        self.saved = state.position.step;
        training.telemetry.event(&TrainEvent::Checkpoint { step: self.saved, path })
    }

    fn save_best<O: Objective>(&self, training: &mut Training<O>) -> Result<()> {
        match O::BEST_WITHOUT_OPTIMIZER {
            true => training.checkpoints.save_weights(training.network),
            false => {
                let state = training.state_now();
                training.checkpoints.save_best(training.network, &training.optimizer, &state, training.settings)
            }
        }
    }

    /// Waits until all is on the disk, which may be slow.
    fn finish<O: Objective>(&self, training: &mut Training<O>) -> Result<()> {
        training.checkpoints.finish()?;
        training.settings.ranks.wait_for_first()
    }
}

impl<O: Objective> Callback<O> for Checkpointing {
    fn after_evaluation(&mut self, training: &mut Training<O>, evaluation: &Evaluation) -> Result<()> {
        if training.is_last_step() {
            training.checkpoints.training_is_over();
        }
        // Without evaluation pieces the last weights are the best: until then checkpoints are enough.
        match evaluation.is_best && (evaluation.loss.is_some() || training.is_last_step()) {
            true => self.save_best(training),
            false => Ok(()),
        }
    }

    fn before_step(&mut self, training: &mut Training<O>, end: Option<End>) -> Result<()> {
        let step = training.state.position.step;
        if end.is_some() {
            training.checkpoints.training_is_over();
        }
        if end.is_some() || step >= self.saved + training.settings.checkpoint_every {
            self.save(training)?;
        }
        match end {
            None => training.checkpoints.drop_copies(),
            Some(End::Interrupted) => self.finish(training)?,
            Some(End::Finished) => {
                self.finish(training)?;
                // A training that went on from a file whose loss it never reached, or ended there, has saved no best ones.
                let ranks = &training.settings.ranks;
                if ranks.any(ranks.is_first() && !best_path(training.checkpoints.folder()).is_file())? {
                    self.save_best(training)?;
                    self.finish(training)?;
                }
            }
        }
        Ok(())
    }
}

/// Ends a training after so many evaluations without a better loss.
pub(crate) struct EarlyStopping;

impl<O: Objective> Callback<O> for EarlyStopping {
    fn ends_early(&self, training: &Training<O>) -> bool {
        training.settings.early_stopping.is_some_and(|patience| training.state.evaluations.without_better >= patience)
    }

    fn before_step(&mut self, training: &mut Training<O>, end: Option<End>) -> Result<()> {
        if end != Some(End::Finished) || !self.ends_early(training) {
            return Ok(());
        }
        let (step, best_epoch) = (training.state.position.step, training.state.evaluations.best_epoch);
        training.telemetry.event(&TrainEvent::StoppedEarly { step, best_epoch })
    }
}

/// Tells the observer that an epoch is over: it may write pieces to listen to.
pub(crate) struct Epochs;

impl<O: Objective> Callback<O> for Epochs {
    fn after_epoch(&mut self, training: &mut Training<O>) -> Result<()> {
        let epoch = training.state.position.epoch;
        if training.state.told_epoch >= epoch {
            return Ok(());
        }
        training.read_numbers()?;
        training.clock.leave_out(|| training.telemetry.epoch(epoch));
        training.settings.ranks.wait_for_first()?;
        // Told to stop meanwhile, the observer may have left its work undone.
        if !training.stop.load(Ordering::Relaxed) {
            training.state.told_epoch = epoch;
        }
        Ok(())
    }
}

/// Evaluations without a better loss that are called overfitting, where `early_stopping` does not say how many.
const OVERFITTING_PATIENCE: u64 = 5;

/// Warns, once for every best evaluation, where what is learned no longer helps with other pieces.
pub(crate) struct Overfitting;

impl<O: Objective> Callback<O> for Overfitting {
    fn after_evaluation(&mut self, training: &mut Training<O>, evaluation: &Evaluation) -> Result<()> {
        let history = &training.state.evaluations;
        let (train_now, patience) =
            (history.train_loss, training.settings.early_stopping.unwrap_or(OVERFITTING_PATIENCE));
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

/// Records a Chrome trace of some steps.
pub(crate) struct Profiling(pub(crate) ProfiledTurns);

impl<O: Objective> Callback<O> for Profiling {
    fn after_step(&mut self, training: &mut Training<O>) -> Result<()> {
        match self.0.turn(training.is_last_step())? {
            Some(path) => {
                let step = training.state.position.step;
                training.telemetry.event(&TrainEvent::Profiled { step, path: path.to_owned() })
            }
            None => Ok(()),
        }
    }
}
