//! Records a Chrome trace of some steps.
use crate::Result;
use crate::callback::Callback;
use crate::event::TrainEvent;
use crate::objective::Objective;
use crate::training::Training;
use torch_ext::ProfiledTurns;

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
