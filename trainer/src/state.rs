//! What a checkpoint says beside weights and moments: where the training is, how its evaluations went, and what it has
//! added up.
use crate::{Settings, StepResult};
use serde::{Deserialize, Serialize};

/// All of it, as the JSON file beside a checkpoint has it: one flat object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Where the training is.
    #[serde(flatten)]
    pub position: TrainPosition,
    /// How its evaluations went.
    #[serde(flatten)]
    pub evaluations: EvalHistory,
    /// Patches trained on.
    pub patches: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The last epoch whose end the observer was told of.
    #[serde(default)]
    pub told_epoch: u64,
    /// Loss scale, and finite steps since it grew.
    pub scale: Option<(f64, i64)>,
    /// Sums since the last log event.
    #[serde(default)]
    pub window: LogWindow,
    /// Under `activation_checkpointing` each block has a dropout seed of its own. A training of an earlier program goes on
    /// without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distinct_seeds: bool,
}

/// Where a training is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainPosition {
    /// Optimizer steps done, skipped ones counted.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Steps done of the epoch under way.
    pub step_in_epoch: u64,
    /// Examples seen of the epoch under way; not known of old checkpoints.
    #[serde(default)]
    pub examples_in_epoch: Option<u64>,
    /// Steps that the schedule has advanced: those not skipped.
    pub scheduled: u64,
    /// Optimizer steps in all.
    pub total_steps: u64,
    /// Steps skipped.
    pub skipped: u64,
    /// Steps skipped since the last that was not.
    pub skipped_in_a_row: u64,
    /// An evaluation is due before the next step.
    pub evaluation_due: bool,
}

/// How the evaluations of a training went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalHistory {
    /// Evaluations since the best one.
    pub without_better: u64,
    /// The epoch of the best evaluation.
    pub best_epoch: u64,
    /// The best evaluation's loss.
    pub best_eval_loss: Option<f64>,
    /// The training loss at the best evaluation; not known of old checkpoints.
    #[serde(default)]
    pub best_train_loss: Option<f64>,
    /// The last evaluation's loss.
    pub eval_loss: Option<f64>,
    /// Mean training loss between the last two evaluations.
    pub train_loss: f64,
    /// Training losses since the last evaluation, added up.
    pub loss_sum: f64,
    /// How many of them.
    pub loss_steps: u64,
}

/// Sums over the steps between two log events, skipped ones left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogWindow {
    /// Steps.
    pub steps: u64,
    /// Their losses.
    pub loss: f64,
    /// The objective's other numbers.
    pub values: Vec<f64>,
}

impl TrainState {
    /// That of a new training.
    pub(crate) fn start() -> TrainState {
        TrainState { distinct_seeds: true, ..TrainState::default() }
    }

    /// Takes in the numbers of the next step that had begun.
    pub(crate) fn finish_step(&mut self, result: &StepResult) {
        if result.report.skipped {
            self.position.skipped += 1;
            self.position.skipped_in_a_row += 1;
            return;
        }
        self.position.scheduled += 1;
        self.position.skipped_in_a_row = 0;
        self.evaluations.loss_sum += result.loss;
        self.evaluations.loss_steps += 1;
        self.window.add(result);
    }
}

impl TrainPosition {
    /// The epoch that the last step belongs to, counted from 1.
    pub fn current_epoch(&self) -> u64 {
        if self.step_in_epoch == 0 { self.epoch.max(1) } else { self.epoch + 1 }
    }

    /// The learning rate of the next step.
    pub(crate) fn learning_rate(&self, settings: &Settings) -> f64 {
        settings.learning_rate * settings.factor(self.total_steps, self.scheduled)
    }

    /// Moves on by a step of so many examples. Its numbers are not known yet.
    pub(crate) fn begin_step(&mut self, examples: usize, epoch_is_over: bool) {
        self.step += 1;
        self.step_in_epoch += 1;
        let before = if self.step_in_epoch == 1 { Some(0) } else { self.examples_in_epoch };
        self.examples_in_epoch = before.map(|before| before + examples as u64);
        if epoch_is_over {
            self.epoch += 1;
            self.step_in_epoch = 0;
            self.examples_in_epoch = None;
        }
    }
}

impl EvalHistory {
    /// Adds an evaluation in an epoch: whether it is the best so far. Without evaluation pieces the newest always is.
    pub(crate) fn add(&mut self, eval_loss: Option<f64>, epoch: u64) -> bool {
        self.train_loss = self.loss_sum / self.loss_steps.max(1) as f64;
        (self.loss_sum, self.loss_steps) = (0.0, 0);
        self.eval_loss = eval_loss;
        let is_best = match (eval_loss, self.best_eval_loss) {
            // Not a number is better than nothing, and worse than any number.
            (Some(loss), Some(best)) => loss < best || best.is_nan(),
            _ => true,
        };
        if is_best {
            self.without_better = 0;
            (self.best_epoch, self.best_eval_loss) = (epoch, eval_loss);
            self.best_train_loss = Some(self.train_loss);
        } else {
            self.without_better += 1;
        }
        is_best
    }
}

impl LogWindow {
    fn add(&mut self, result: &StepResult) {
        self.steps += 1;
        self.loss += result.loss;
        self.values.resize(result.values.len(), 0.0);
        for (sum, value) in self.values.iter_mut().zip(&result.values) {
            *sum += value;
        }
    }

    /// The means of the loss and of the other numbers.
    pub(crate) fn means(&self) -> (f64, Vec<f64>) {
        let steps = self.steps.max(1) as f64;
        (self.loss / steps, self.values.iter().map(|sum| sum / steps).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_evaluation_that_is_not_a_number_does_not_stay_the_best() {
        let losses = [Some(f64::NAN), Some(f64::NAN), Some(3.0), Some(f64::NAN), Some(2.0)];
        let mut history = EvalHistory::default();
        assert_eq!(losses.map(|loss| history.add(loss, 1)), [true, true, true, false, true]);
        assert_eq!(history.best_eval_loss, Some(2.0));
        // The same where the training goes on after each evaluation: JSON has no such number.
        let mut state = TrainState::default();
        let best = losses.map(|loss| {
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            state.evaluations.add(loss, 1)
        });
        assert_eq!(best, [true, true, true, false, true]);
    }

    #[test]
    fn a_state_is_the_flat_object_that_earlier_programs_wrote() {
        let text = concat!(
            r#"{"step":7,"epoch":1,"step_in_epoch":2,"examples_in_epoch":4,"scheduled":6,"total_steps":15,"skipped":1,"#,
            r#""skipped_in_a_row":0,"evaluation_due":false,"without_better":1,"best_epoch":1,"best_eval_loss":2.5,"#,
            r#""best_train_loss":2.25,"eval_loss":2.75,"train_loss":2.0,"loss_sum":0.1,"loss_steps":2,"patches":99,"#,
            r#""seconds":1.5,"told_epoch":1,"scale":[65536.0,3],"window":{"steps":2,"loss":4.5,"values":[]}}"#
        );
        let state: TrainState = serde_json::from_str(text).unwrap();
        assert_eq!((state.position.step, state.evaluations.loss_sum, state.scale), (7, 0.1, Some((65536.0, 3))));
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
        // Before `examples_in_epoch`, `best_train_loss`, `told_epoch` and `window` there were.
        let old = text.replace(r#""examples_in_epoch":4,"#, "").replace(r#""best_train_loss":2.25,"#, "");
        let old = old.replace(r#""told_epoch":1,"#, "").replace(r#","window":{"steps":2,"loss":4.5,"values":[]}"#, "");
        let old: TrainState = serde_json::from_str(&old).unwrap();
        assert!(!old.distinct_seeds);
        let new = serde_json::to_string(&TrainState::start()).unwrap();
        assert!(serde_json::from_str::<TrainState>(&new).unwrap().distinct_seeds);
        assert_eq!((old.position.examples_in_epoch, old.evaluations.best_train_loss, old.told_epoch), (None, None, 0));
    }
}
