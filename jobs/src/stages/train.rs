//! Training: pretrain, post_train and finetune.
use std::path::Path;

use model::{Architecture, NotaGen};
use serde_json::{Map, Value, json};
use trainer::{Event, Length, Observer, Outcome, Settings};

use crate::{
    cost::Cost,
    failure::{Failure, Result},
    loading,
    plan::Planned,
    progress::{self, Reporter, bytes},
    recipe::{KeyAugmentation, Precision, Schedule, Training},
    stages::{Context, Ended},
    state::Outputs,
};

/// Load, build, resume, run.
pub fn run(stage: &Training, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let architecture = context.plan.architecture.clone().ok_or_else(|| Failure::usage("the key `model` is missing"))?;
    let settings = settings(stage, &architecture, context)?;
    let model = match &planned.init {
        None => {
            context.reporter.say("starts from scratch");
            NotaGen::new(&architecture, context.device, settings.seed)?
        }
        Some(init) => {
            let path = context.weights(init)?;
            context.reporter.say(format!("starts from {}", path.display()));
            loading::load(&path, Some(&architecture), context.device)?
        }
    };
    torch_ext::keep_freed_memory();
    let mut watch = Watch { reporter: context.reporter, total_steps: 0 };
    match trainer::train(&settings, &model, context.folder, context.stop, &mut watch) {
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
        Err(error) => {
            let hint = error.hint();
            let failure = match &error {
                trainer::Error::Settings(message) => Failure::usage(message),
                other => Failure::failed(other.to_string()),
            };
            Err(failure.hint_if(hint))
        }
    }
}

fn settings(stage: &Training, architecture: &Architecture, context: &Context) -> Result<Settings> {
    let unset = |key: &str| Failure::usage(format!("the key `{key}` is not resolved"));
    let learning_rate = stage.learning_rate.ok_or_else(|| unset("learning_rate"))?.get();
    let batch_size = stage.batch_size.ok_or_else(|| unset("batch_size"))?;
    let length = match (stage.steps, stage.epochs) {
        (Some(steps), _) => Length::Steps(steps.get()),
        (None, Some(epochs)) => Length::Epochs(epochs.get()),
        (None, None) => return Err(unset("epochs")),
    };
    let floor = stage.min_learning_rate.get() / learning_rate;
    let schedule = match stage.schedule {
        Schedule::Constant => trainer::Schedule::Constant,
        Schedule::Cosine => trainer::Schedule::Cosine { floor },
        Schedule::Wsd => {
            let decay_steps = match (stage.decay_steps, stage.decay_fraction) {
                (Some(steps), _) => steps.get(),
                (None, fraction) => {
                    let steps = Cost::of(stage, architecture).steps.ok_or_else(|| empty(&stage.train))?;
                    (fraction.map_or(0.1, |fraction| fraction.get()) * steps as f64).round() as u64
                }
            };
            trainer::Schedule::Wsd { decay_steps, floor }
        }
    };
    Ok(Settings {
        seed: context.plan.recipe.seed,
        device: context.device,
        precision: match stage.precision.unwrap_or_default() {
            Precision::Fp32 => trainer::Precision::Fp32,
            Precision::Bf16 => trainer::Precision::Bf16,
            Precision::Fp16 => trainer::Precision::Fp16,
        },
        train: stage.train.clone(),
        eval: stage.eval.clone(),
        pieces: stage.pieces.clone(),
        eval_pieces: stage.eval_pieces.clone(),
        key_augmentation: match stage.key_augmentation.ok_or_else(|| unset("key_augmentation"))? {
            KeyAugmentation::All => trainer::KeyAugmentation::All,
            KeyAugmentation::Nearby => trainer::KeyAugmentation::Nearby,
            KeyAugmentation::None => trainer::KeyAugmentation::None,
        },
        learning_rate,
        batch_size: size(batch_size.get())?,
        accumulation_steps: size(stage.accumulation_steps.get())?,
        length,
        early_stopping: stage.early_stopping.map(u64::from),
        schedule,
        warmup_steps: stage.warmup_steps,
        weight_decay: stage.weight_decay.get(),
        max_grad_norm: stage.max_grad_norm.map(|norm| norm.get()),
        checkpoint_every: stage.checkpoint_every.get(),
        keep_checkpoints: size(stage.keep_checkpoints.get())?,
        evaluate_every: stage.evaluate_every.map(u64::from),
        log_every: stage.log_every.get(),
        activation_checkpointing: stage.activation_checkpointing,
        patch_sampling: (stage.patch_sampling > 0).then(|| size(stage.patch_sampling)).transpose()?,
        resume_from: stage.resume_from.clone(),
        workers: size(stage.workers.get())?,
    })
}

fn size(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Failure::usage(format!("{number} is too large for this machine")))
}

fn empty(index: &Path) -> Failure {
    Failure::failed(format!("{}: no pieces to train on", index.display()))
}

/// Shows a training's events.
struct Watch<'a> {
    reporter: &'a mut Reporter,
    total_steps: u64,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        if let Ok(fields) = serde_json::to_value(event) {
            let name = fields["event"].as_str().unwrap_or("event").to_owned();
            self.reporter.event(&name, fields);
        }
        match event {
            Event::Started { train_pieces, eval_pieces, steps_per_epoch, total_steps, resumed_from } => {
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
            Event::Step { step, epoch, loss, patches_per_second, memory, skipped, seconds, .. } => {
                let left = seconds / *step as f64 * self.total_steps.saturating_sub(*step) as f64;
                let skipped = if *skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
                let text = format!(
                    "epoch {epoch}, loss {loss:.4}, {patches_per_second:.0} patches/s, {}, {} left{skipped}",
                    bytes(*memory),
                    progress::duration(left)
                );
                self.reporter.progress(*step, Some(self.total_steps), &text);
            }
            Event::Skipped { step, loss } => {
                self.reporter.say(format!("step {step} skipped: loss {loss} or its gradient is not finite"));
            }
            Event::Evaluated { step, epoch, train_loss, eval_loss, best, .. } => {
                let best = if *best { ", the best so far" } else { "" };
                self.reporter.say(format!(
                    "step {step}, epoch {epoch}: train loss {train_loss:.4}, eval loss {eval_loss:.4}{best}"
                ));
            }
            Event::Checkpoint { .. } => {}
            Event::StoppedEarly { step, best_epoch } => {
                self.reporter.say(format!("stops at step {step}: no better evaluation since epoch {best_epoch}"));
            }
        }
    }
}
