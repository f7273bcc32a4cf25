//! Saves the training as often as asked and at its end, and the best weights.
use crate::Result;
use crate::callback::Callback;
use crate::checkpoint::{Checkpoints, best_path};
use crate::event::TrainEvent;
use crate::objective::Objective;
use crate::training::{End, Evaluation, Training};

pub(crate) struct Checkpointing {
    checkpoints: Checkpoints,
    /// The step of the last checkpoint.
    saved: u64,
}

impl Checkpointing {
    /// Goes on after a checkpoint of a step.
    pub(crate) fn new(checkpoints: Checkpoints, saved: u64) -> Checkpointing {
        Checkpointing { checkpoints, saved }
    }

    fn save<O: Objective>(&mut self, training: &mut Training<O>) -> Result<()> {
        training.read_numbers()?;
        training.settings.ranks.check_weights(training.network)?;
        let state = training.state_now();
        let path = self.checkpoints.save(training.network, &training.optimizer, &state, training.settings)?;
        self.saved = state.position.step;
        training.telemetry.event(&TrainEvent::Checkpoint { step: self.saved, path })
    }

    fn save_best<O: Objective>(&mut self, training: &Training<O>) -> Result<()> {
        match O::BEST_WITHOUT_OPTIMIZER {
            true => self.checkpoints.save_weights(training.network),
            false => {
                let state = training.state_now();
                self.checkpoints.save_best(training.network, &training.optimizer, &state, training.settings)
            }
        }
    }

    /// Waits until all is on the disk, which may be slow.
    fn finish<O: Objective>(&mut self, training: &Training<O>) -> Result<()> {
        self.checkpoints.finish()?;
        training.settings.ranks.wait_for_first()
    }
}

impl<O: Objective> Callback<O> for Checkpointing {
    fn after_evaluation(&mut self, training: &mut Training<O>, evaluation: &Evaluation) -> Result<()> {
        // Without evaluation pieces the last weights are the best: until then checkpoints are enough.
        match evaluation.is_best && (evaluation.loss.is_some() || training.is_last_step()) {
            true => self.save_best(training),
            false => Ok(()),
        }
    }

    fn before_step(&mut self, training: &mut Training<O>, end: Option<End>) -> Result<()> {
        let step = training.state.position.step;
        if end.is_some() || step >= self.saved + training.settings.checkpoint_every {
            self.save(training)?;
        }
        match end {
            None => self.checkpoints.drop_copies(),
            Some(End::Interrupted) => self.finish(training)?,
            Some(End::Finished) => {
                self.finish(training)?;
                // A training that went on from a file whose loss it never reached, or ended there, has saved no best ones.
                let ranks = &training.settings.ranks;
                if ranks.any(ranks.is_first() && !best_path(self.checkpoints.folder()).is_file())? {
                    self.save_best(training)?;
                    self.finish(training)?;
                }
            }
        }
        Ok(())
    }
}
