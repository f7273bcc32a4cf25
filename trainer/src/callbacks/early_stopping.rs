//! Ends a training after so many evaluations without a better loss.
use crate::Result;
use crate::callback::Callback;
use crate::event::TrainEvent;
use crate::objective::Objective;
use crate::training::{End, Training};

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
