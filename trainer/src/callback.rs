//! What happens beside the steps of a training.
use crate::Result;
use crate::objective::Objective;
use crate::training::{End, Evaluation, Training};

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
