//! What every stage that trains has in common: its settings, its end, and what people see of it.
use serde_json::json;
use trainer::{ErrorKind, Observer, Outcome, Schedule, Settings, TrainEvent};

use crate::common::failure::{Failure, Result};
use crate::common::progress::{self, Reporter, bytes};
use crate::launch;
use crate::plan::products;
use crate::plan::state::Outputs;
use crate::stages::context::{Context, Ended};
use crate::stages::listen::Listen;

/// Fills in the settings that depend on the run: devices, ranks, the steps of a wsd schedule's fall. `total_steps` is called
/// only for the last.
pub fn settle(settings: &mut Settings, context: &mut Context, total_steps: impl FnOnce() -> Result<u64>) -> Result<()> {
    if let (Schedule::Wsd, None, Some(portion)) = (settings.schedule, settings.decay_steps, settings.decay_fraction) {
        settings.decay_steps = Some((portion * total_steps()? as f64).round() as u64);
    }
    settings.peak = products::of(context.device, settings.precision);
    settings.ranks = context.team.ranks(context.device)?;
    settings.profile = context.profile;
    Ok(())
}

/// A training's end as a stage's.
pub fn ended(outcome: trainer::Result<Outcome>) -> Result<Ended> {
    match outcome {
        Ok(Outcome::Finished(report)) => {
            let eval_loss = json!({ "eval_loss": report.best_eval_loss });
            let mut outputs = Outputs::new(vec![report.best.clone()], &eval_loss);
            outputs.facts.extend(Outputs::new(Vec::new(), &report).facts);
            outputs.weights = Some(report.best);
            Ok(Ended::Done(outputs))
        }
        Ok(Outcome::Interrupted) => Ok(Ended::Interrupted),
        Err(error) => Err(error.into()),
    }
}

impl From<trainer::Error> for Failure {
    fn from(error: trainer::Error) -> Failure {
        let failure = match error.kind() {
            ErrorKind::Config => Failure::usage(error.to_string()),
            ErrorKind::Peer => launch::of_peer(Failure::failed(error.to_string())),
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
