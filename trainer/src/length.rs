//! How long a training is.
use crate::event::TrainEvent;
use crate::objective::{Objective, Split};
use crate::settings::{Length, Settings};
use crate::state::TrainPosition;

/// The steps of an epoch, and of the training.
pub(crate) struct StepCounts {
    pub(crate) per_epoch: u64,
    pub(crate) total: u64,
}

impl StepCounts {
    /// From a position with so many steps left of its epoch.
    pub(crate) fn of(
        settings: &Settings,
        objective: &impl Objective,
        position: &TrainPosition,
        left: u64,
    ) -> StepCounts {
        let per_epoch = objective.epoch(0).len() as u64;
        let total = match settings.length {
            Length::Epochs(epochs) if position.epoch >= epochs => position.step,
            Length::Epochs(epochs) => position.step + left + (epochs - position.epoch - 1) * per_epoch,
            Length::Steps(steps) => steps,
        };
        StepCounts { per_epoch, total }
    }

    /// The learning rates of the steps that are left, if none of them is skipped.
    pub(crate) fn learning_rates(&self, settings: &Settings, position: &TrainPosition) -> Vec<f64> {
        let left = self.total.saturating_sub(position.step);
        let steps = position.scheduled..position.scheduled + left;
        steps.map(|step| settings.learning_rate * settings.factor(self.total, step)).collect()
    }

    pub(crate) fn started(&self, objective: &impl Objective, resumed_from: u64) -> TrainEvent {
        TrainEvent::Started {
            train_pieces: objective.examples(Split::Train),
            eval_pieces: objective.examples(Split::Eval),
            steps_per_epoch: self.per_epoch,
            total_steps: self.total,
            resumed_from,
        }
    }
}

/// The steps left of the epoch under way. If the number of ranks has changed, the examples that were not seen yet are the
/// same, in steps of another size.
pub(crate) fn rest_of_epoch<O: Objective>(objective: &O, position: &TrainPosition) -> Vec<Vec<usize>> {
    let mut steps = objective.epoch(position.epoch);
    let done = steps.len().min(position.step_in_epoch as usize);
    let seen: usize = steps[..done].iter().map(Vec::len).sum();
    match position.examples_in_epoch {
        Some(before) if !O::DRAWN && before != seen as u64 => {
            let size = steps.first().map_or(1, Vec::len);
            let examples = steps.concat();
            let rest = &examples[examples.len().min(before as usize)..];
            rest.chunks(size).map(<[usize]>::to_vec).collect()
        }
        _ => steps.split_off(done),
    }
}
