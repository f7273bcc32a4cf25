//! A training under way: what the loop and its callbacks work on.
use crate::clock::{Clock, Speed};
use crate::loader::{Loader, LoaderThreads};
use crate::telemetry::Telemetry;
use crate::{
    Checkpoints, Error, Objective, Optimizer, PendingStep, Result, Settings, Split, StepInput, TrainEvent, TrainReport,
    TrainState, Trainable, begin_step, finish_steps,
};
use model::Mode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Kind, Tensor};
use torch_ext::{Autocast, Span};

/// Steps in a row without a finite gradient that end a training. Loss scaling starts high and may need some.
const MAX_SKIPPED_IN_A_ROW: u64 = 30;

/// Everything that a training has in hand.
pub(crate) struct Training<'a, O: Objective> {
    pub(crate) settings: &'a Settings,
    pub(crate) objective: &'a Arc<O>,
    pub(crate) network: &'a O::Network,
    pub(crate) optimizer: Optimizer,
    pub(crate) checkpoints: Checkpoints,
    /// As of the last step begun; of steps whose numbers were not read yet the numbers are missing.
    pub(crate) state: TrainState,
    pub(crate) clock: Clock,
    pub(crate) speed: Speed,
    pub(crate) last: LastStep,
    pub(crate) telemetry: Telemetry<'a>,
    pub(crate) threads: &'a LoaderThreads,
    /// The steps left of the epoch under way.
    pub(crate) epoch: Loader<'a, O>,
    /// Raised when the training shall save and end.
    pub(crate) stop: &'a AtomicBool,
    /// Whether a rank's flag was raised, as all ranks know it.
    pub(crate) stopping: bool,
    /// Steps whose numbers are on the device.
    pub(crate) in_flight: Vec<PendingStep>,
}

/// The optimizer's numbers of the last step whose numbers were read.
#[derive(Default)]
pub(crate) struct LastStep {
    pub(crate) learning_rate: f64,
    pub(crate) grad_norm: f64,
    pub(crate) scale: f64,
}

/// Why a training ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It is complete.
    Finished,
    /// It was told to stop.
    Interrupted,
}

/// An evaluation of the weights as they are.
pub(crate) struct Evaluation {
    /// Nothing without evaluation pieces.
    pub(crate) loss: Option<f64>,
    pub(crate) is_best: bool,
}

impl<O: Objective> Training<'_, O> {
    /// Begins the next step. Its numbers stay on the device until [`Training::read_numbers`].
    pub(crate) fn step(&mut self) -> Result<()> {
        let begun = Instant::now();
        if self.epoch.is_over() {
            let epoch = self.state.position.epoch;
            let (ranks, batches) = (&self.settings.ranks, self.settings.accumulation_steps);
            let steps = self.objective.epoch(epoch);
            self.epoch = Loader::train(self.threads, self.objective, (epoch, 0), &steps, ranks, batches);
        }
        let input = self.wait_for_batch()?;
        let (objective, network) = (self.objective, self.network);
        let loss = |mut input, mode| {
            torch_ext::send(&mut O::tensors(&mut input), network.device())?;
            objective.loss(network, input, mode)
        };
        let stop = self.stop.load(Ordering::Relaxed);
        let number = (self.state.position.step, self.state.distinct_seeds);
        let pending = begin_step(self.settings, &mut self.optimizer, input, number, stop, loss)?;
        self.stopping |= self.settings.ranks.size() > 1 && pending.stopped;
        self.state.position.begin_step(self.epoch.examples(), self.epoch.is_over());
        self.state.patches += pending.work.patches as u64;
        self.speed.work += pending.work;
        self.in_flight.push(pending);
        self.state.position.evaluation_due = self.evaluates_here();
        self.speed.elapsed += begun.elapsed();
        Ok(())
    }

    fn wait_for_batch(&mut self) -> Result<StepInput<O::Input>> {
        let asked = Instant::now();
        let span = Span::new("wait for a batch");
        let input = self.epoch.next().ok_or_else(|| Error::Internal("an epoch without steps".to_owned()))?;
        drop(span);
        // With work left the device did not wait.
        if torch_ext::is_idle(self.network.device()) {
            self.speed.waited += asked.elapsed();
        }
        if let Some(message) = self.threads.warning() {
            self.telemetry.event(&TrainEvent::Warning { step: self.state.position.step, message })?;
        }
        input
    }

    /// Waits for the steps that were begun, and takes their numbers in.
    pub(crate) fn read_numbers(&mut self) -> Result<()> {
        let begun = Instant::now();
        let steps = std::mem::take(&mut self.in_flight);
        let results = finish_steps(&self.settings.ranks, &steps)?;
        self.speed.elapsed += begun.elapsed();
        let before = self.state.position.step - steps.len() as u64;
        for (result, step) in results.iter().zip(before + 1..) {
            let (report, loss) = (result.report, result.loss);
            let learning_rate = self.state.position.learning_rate(self.settings);
            self.last = LastStep { learning_rate, grad_norm: report.grad_norm, scale: report.scale };
            self.state.finish_step(result);
            if report.skipped {
                self.telemetry.event(&TrainEvent::Skipped { step, loss })?;
                if self.state.position.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW {
                    return Err(Error::NotFinite { steps: MAX_SKIPPED_IN_A_ROW, step, loss });
                }
            }
        }
        Ok(())
    }

    /// Whether the weights are evaluated after the last step.
    fn evaluates_here(&self) -> bool {
        let position = &self.state.position;
        self.is_last_step()
            || match self.settings.evaluate_every {
                Some(steps) => position.step.is_multiple_of(steps),
                None => position.step_in_epoch == 0,
            }
    }

    /// Evaluates the weights. Nothing, and the evaluation stays due, where a rank is told to stop meanwhile.
    pub(crate) fn evaluate(&mut self) -> Result<Option<Evaluation>> {
        self.read_numbers()?;
        let Some(loss) = self.eval_loss()? else { return Ok(None) };
        let TrainState { position, evaluations, .. } = &mut self.state;
        position.evaluation_due = false;
        let (step, epoch) = (position.step, position.current_epoch());
        let is_best = evaluations.add(loss, epoch);
        if let Some(eval_loss) = loss {
            self.telemetry.event(&TrainEvent::Evaluated {
                step,
                epoch,
                train_loss: evaluations.train_loss,
                eval_loss,
                best: is_best,
                best_epoch: evaluations.best_epoch,
                seconds: self.clock.seconds(),
            })?;
        }
        Ok(Some(Evaluation { loss, is_best }))
    }

    /// The mean loss over all evaluation examples, in the training's precision, each on one of the ranks. Without such
    /// examples there is no loss; where a rank is told to stop there is nothing.
    fn eval_loss(&self) -> Result<Option<Option<f64>>> {
        let (objective, network, ranks) = (self.objective, self.network, &self.settings.ranks);
        if objective.examples(Split::Eval) == 0 {
            return Ok(Some(None));
        }
        let _no_grad = tch::no_grad_guard();
        let mut sum = Tensor::f_zeros([], (Kind::Double, network.device()))?;
        let (mut weight, mut stopped) = (0, false);
        for step in Loader::eval(self.threads, objective, ranks) {
            for mut batch in step? {
                torch_ext::send(&mut O::tensors(&mut batch.input), network.device())?;
                let _autocast = Autocast::new(network.device(), self.settings.precision.kind())?;
                let loss = objective.loss(network, batch.input, Mode::EVAL)?;
                sum = sum.f_add(&loss.sum.f_to_kind(Kind::Double)?)?;
                weight += batch.weight;
            }
            stopped = self.stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
        }
        let totals = ranks.sum(&[sum.f_double_value(&[])?, weight as f64, f64::from(stopped)])?;
        Ok((totals[2] == 0.0).then_some(Some(totals[0] / totals[1])))
    }

    /// Whether the last step was the last of its epoch, and nothing of that epoch is due any more.
    pub(crate) fn epoch_is_over(&self) -> bool {
        let position = &self.state.position;
        position.step_in_epoch == 0 && position.epoch > 0 && !position.evaluation_due
    }

    /// Whether the last step was the training's last.
    pub(crate) fn is_last_step(&self) -> bool {
        self.state.position.step >= self.state.position.total_steps
    }

    /// Whether the training ends here, and why; the same on all ranks. Between steps ranks exchange their flags with the
    /// step, and here where there was more to do than a step.
    pub(crate) fn end(&mut self, early: bool) -> Result<Option<End>> {
        let ranks = &self.settings.ranks;
        let position = &self.state.position;
        if ranks.size() == 1 || position.step_in_epoch == 0 || position.evaluation_due || self.evaluates_here() {
            self.stopping |= ranks.any(self.stop.load(Ordering::Relaxed))?;
        }
        let finished = !position.evaluation_due && (early || self.is_last_step());
        Ok(match (finished, self.stopping) {
            (true, _) => Some(End::Finished),
            (false, true) => Some(End::Interrupted),
            (false, false) => None,
        })
    }

    /// The state as it is to be saved.
    pub(crate) fn state_now(&self) -> TrainState {
        TrainState { seconds: self.clock.seconds(), ..self.state.clone() }
    }

    pub(crate) fn report(&self) -> TrainReport {
        TrainReport::of(&self.state_now(), self.checkpoints.folder())
    }
}
