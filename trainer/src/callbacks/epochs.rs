//! Tells the observer that an epoch is over: it may write pieces to listen to.
use crate::Result;
use crate::callback::Callback;
use crate::objective::Objective;
use crate::training::Training;
use std::sync::atomic::Ordering;

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
