//! What every stage that trains has in common: the course of its steps, its end, and what people see of it.
use serde_json::{Map, Value, json};
use tch::Device;
use trainer::{ErrorKind, Length, Observer, Outcome, Ranks, Settings, TrainEvent};

use crate::{
    common::{
        failure::{Failure, Result},
        progress::{self, Reporter, bytes},
    },
    plan::{products, state::Outputs},
    recipe::{Course, Schedule},
    stages::{context::Ended, listen::Listen},
};

/// The settings of the loop. `total_steps` is asked for where the schedule counts from the end.
pub fn settings(
    course: &Course,
    seed: u64,
    device: Device,
    total_steps: impl FnOnce() -> Result<u64>,
) -> Result<Settings> {
    let length = match (course.steps, course.epochs) {
        (Some(steps), _) => Length::Steps(steps),
        (None, Some(epochs)) => Length::Epochs(epochs),
        (None, None) => return Err(Failure::usage("the key `epochs` is not resolved")),
    };
    let floor = course.min_learning_rate / course.learning_rate;
    let schedule = match course.schedule {
        Schedule::Constant => trainer::Schedule::Constant,
        Schedule::Cosine => trainer::Schedule::Cosine { floor },
        Schedule::Wsd => {
            let decay_steps = match course.decay_steps {
                Some(steps) => steps,
                None => (course.decay_fraction.unwrap_or(0.1) * total_steps()? as f64).round() as u64,
            };
            trainer::Schedule::Wsd { decay_steps, floor }
        }
    };
    Ok(Settings {
        seed,
        precision: course.precision.into(),
        learning_rate: course.learning_rate,
        batch_size: size(course.batch_size)?,
        accumulation_steps: size(course.accumulation_steps)?,
        length,
        early_stopping: course.early_stopping,
        schedule,
        warmup_steps: course.warmup_steps,
        weight_decay: course.weight_decay,
        max_grad_norm: course.max_grad_norm,
        checkpoint_every: course.checkpoint_every,
        keep_checkpoints: size(course.keep_checkpoints)?,
        evaluate_every: course.evaluate_every,
        log_every: course.log_every,
        activation_checkpointing: course.activation_checkpointing,
        gradient_precision: course.gradient_precision.into(),
        shard_optimizer: course.shard_optimizer,
        optimizer_offload: course.optimizer_offload,
        resume_from: None,
        profile: None,
        peak: products::of(device, course.precision),
        workers: size(course.workers)?,
        ranks: Ranks::default(),
    })
}

pub fn size(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Failure::usage(format!("{number} is too large for this machine")))
}

/// A training's end as a stage's.
pub fn ended(outcome: trainer::Result<Outcome>) -> Result<Ended> {
    match outcome {
        Ok(Outcome::Finished(report)) => {
            let mut facts = Map::new();
            facts.insert("eval_loss".to_owned(), json!(report.best_eval_loss));
            if let Ok(Value::Object(report)) = serde_json::to_value(&report) {
                facts.extend(report);
            }
            Ok(Ended::Done(Outputs {
                files: vec![report.best.clone()],
                weights: Some(report.best),
                facts,
                ..Outputs::default()
            }))
        }
        Ok(Outcome::Interrupted) => Ok(Ended::Interrupted),
        Err(error) => Err(error.into()),
    }
}

impl From<trainer::Error> for Failure {
    fn from(error: trainer::Error) -> Failure {
        let failure = match error.kind() {
            ErrorKind::Config => Failure::usage(error.to_string()),
            ErrorKind::Peer => Failure::failed(error.to_string()).of_peer(),
            ErrorKind::OutOfMemory => Failure::failed(format!("out of memory: {error}")),
            ErrorKind::Data | ErrorKind::NotFinite | ErrorKind::Internal => Failure::failed(error.to_string()),
        };
        failure.hint_if(error.hint())
    }
}

/// Shows a training's events.
pub struct Watch<'a> {
    reporter: &'a mut Reporter,
    listen: Option<Listen<'a>>,
    total_steps: u64,
}

impl<'a> Watch<'a> {
    pub fn new(reporter: &'a mut Reporter) -> Watch<'a> {
        Watch { reporter, listen: None, total_steps: 0 }
    }

    /// One that also writes pieces at the end of epochs.
    pub fn listening(reporter: &'a mut Reporter, listen: Option<Listen<'a>>) -> Watch<'a> {
        Watch { listen, ..Watch::new(reporter) }
    }
}

impl Observer for Watch<'_> {
    fn epoch(&mut self, epoch: u64) {
        if let Some(listen) = &self.listen
            && let Err(failure) = listen.epoch(epoch, self.reporter)
        {
            self.reporter.warn(format!("no pieces of epoch {epoch} to listen to: {failure}"));
        }
    }

    fn event(&mut self, event: &TrainEvent) {
        if let Ok(fields) = serde_json::to_value(event) {
            let name = fields["event"].as_str().unwrap_or("event").to_owned();
            self.reporter.event(&name, fields);
        }
        match event {
            TrainEvent::Started { train_pieces, eval_pieces, steps_per_epoch, total_steps, resumed_from } => {
                self.total_steps = *total_steps;
                let resumed = match resumed_from {
                    0 => String::new(),
                    step => format!(", goes on after step {step}"),
                };
                self.reporter.say(format!(
                    "{train_pieces} pieces to train on, {eval_pieces} to evaluate on; \
                     {total_steps} steps, {steps_per_epoch} an epoch{resumed}"
                ));
            }
            TrainEvent::Step {
                step,
                epoch,
                loss,
                patches_per_second,
                mfu,
                data_wait,
                memory,
                skipped,
                seconds,
                ..
            } => {
                let left = seconds / *step as f64 * self.total_steps.saturating_sub(*step) as f64;
                let skipped = if *skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
                let used = mfu.map_or_else(String::new, |mfu| format!(" ({:.0} % of the device)", mfu * 100.0));
                let waits = match data_wait {
                    0.05.. => format!(", {:.0} % of the time without a batch", data_wait * 100.0),
                    _ => String::new(),
                };
                let text = format!(
                    "epoch {epoch}, loss {loss:.4}, {patches_per_second:.0} patches/s{used}{waits}, {}, {} left{skipped}",
                    bytes(*memory),
                    progress::duration(left)
                );
                self.reporter.progress(*step, Some(self.total_steps), &text);
            }
            TrainEvent::Skipped { step, loss } => {
                self.reporter.say(format!("step {step} skipped: loss {loss} or its gradient is not finite"));
            }
            TrainEvent::Evaluated { step, epoch, train_loss, eval_loss, best, .. } => {
                let best = if *best { ", the best so far" } else { "" };
                self.reporter.say(format!(
                    "step {step}, epoch {epoch}: train loss {train_loss:.4}, eval loss {eval_loss:.4}{best}"
                ));
            }
            TrainEvent::Profiled { path, .. } => {
                self.reporter.say(format!("profile: {}, a Chrome trace for ui.perfetto.dev", path.display()));
            }
            TrainEvent::Warning { step, message } => self.reporter.say(format!("warning: step {step}: {message}")),
            TrainEvent::Checkpoint { .. } | TrainEvent::Reference { .. } | TrainEvent::Exchange { .. } => {}
            TrainEvent::StoppedEarly { step, best_epoch } => {
                self.reporter.say(format!("stops at step {step}: no better evaluation since epoch {best_epoch}"));
            }
        }
    }
}
