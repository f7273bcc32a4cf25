//! The training of pre-training, post-training and fine-tuning (the original's `train-gen.py`).
use crate::checkpoint::{Checkpoints, Position};
use crate::data::{Dataset, read_index};
use crate::evaluate::evaluate;
use crate::loader::{Loader, Plan, Step};
use crate::optimizer::{Optimizer, StepReport};
use crate::schedule;
use crate::settings::{Length, Settings};
use crate::stream::{self, Purpose};
use crate::telemetry::{Event, Observer, Telemetry};
use crate::{Error, Result};
use model::patches::Patchiliser;
use model::{Checkpointing, Mode, NotaGen};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Kind, Tensor};
use torch_ext::Autocast;

/// Steps in a row without a finite gradient that end a training. Loss scaling starts high and may need some.
const MOST_SKIPPED: u64 = 30;

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is complete.
    Finished(Report),
    /// It was told to stop, and saved.
    Interrupted,
}

/// What a complete training gave.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps left out because of a gradient that was not finite.
    pub skipped: u64,
    /// Epochs begun.
    pub epochs: u64,
    /// The epoch with the lowest evaluation loss.
    pub best_epoch: u64,
    /// The lowest evaluation loss.
    pub best_eval_loss: Option<f64>,
    /// The evaluation loss at the end.
    pub final_eval_loss: Option<f64>,
    /// The training loss since the last evaluation but one.
    pub train_loss: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Patches trained on.
    pub patches: u64,
    /// The weights with the lowest evaluation loss.
    pub best: PathBuf,
    /// The checkpoint at the end.
    pub last: PathBuf,
}

/// Trains `model` in `folder`, from the newest checkpoint there or from the start.
///
/// The folder gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`. When `stop` is set the training saves and
/// returns [`Outcome::Interrupted`]. The result is the same with and without interruptions, on the CPU bit for bit.
pub fn train(
    settings: &Settings,
    model: &NotaGen,
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    settings.check()?;
    let data = Data::open(settings, model)?;
    let mut optimizer = Optimizer::new(model, settings.precision, settings.weight_decay, settings.max_grad_norm);
    let mut checkpoints = Checkpoints::open(folder, settings.keep_checkpoints)?;
    let mut position = match (checkpoints.resume(model, &mut optimizer)?, &settings.resume_from) {
        (Some(position), _) => position,
        (None, Some(path)) => checkpoints.resume_from(path, model, &mut optimizer, data.steps_per_epoch)?,
        (None, None) => Position::default(),
    };
    position.total_steps = data.total_steps;
    let mut telemetry = Telemetry::resume(folder, position.step, observer)?;
    telemetry.event(&data.started(position.step))?;
    let mut clock = Clock::start(&position);
    let mut saved = position.step;
    let mut steps = data.epoch(position.epoch, position.step_in_epoch);

    loop {
        if position.evaluation_due
            && let Some(eval_loss) = data.evaluate(settings, model, stop)?
        {
            clock.read(&mut position);
            let evaluation = position.evaluated(eval_loss);
            evaluation.event.map_or(Ok(()), |event| telemetry.event(&event))?;
            if evaluation.best {
                checkpoints.save_best(model, &optimizer, &position, settings)?;
            }
        }
        let early = position.stopped_early(settings.early_stopping);
        let finished = !position.evaluation_due && (early || position.step >= data.total_steps);
        let stopped = stop.load(Ordering::Relaxed) && !finished;
        if finished || stopped || position.step >= saved + settings.checkpoint_every {
            clock.read(&mut position);
            let path = checkpoints.save(model, &optimizer, &position, settings)?;
            saved = position.step;
            telemetry.event(&Event::Checkpoint { step: saved, path: path.clone() })?;
            if stopped {
                checkpoints.finish()?;
                return Ok(Outcome::Interrupted);
            }
            if finished {
                checkpoints.finish()?;
                if early {
                    telemetry.event(&Event::StoppedEarly { step: saved, best_epoch: position.best_epoch })?;
                }
                return Ok(Outcome::Finished(position.report(checkpoints.best(), path)));
            }
        }
        let Some(step) = steps.next() else {
            steps = data.epoch(position.epoch, 0);
            continue;
        };
        let factor = schedule::factor(settings.schedule, settings.warmup_steps, data.total_steps, position.scheduled);
        let learning_rate = settings.learning_rate * factor;
        let (loss, patches, done) = run_step(settings, model, &mut optimizer, step?, learning_rate, position.step)?;
        position.advance(loss, patches, &done, data.steps_per_epoch);
        let last = position.step >= data.total_steps;
        position.evaluation_due = last || data.evaluates(settings, &position);
        if done.skipped {
            telemetry.event(&Event::Skipped { step: position.step, loss })?;
            if position.skipped_in_a_row >= MOST_SKIPPED {
                return Err(Error::Diverged { steps: MOST_SKIPPED, step: position.step, loss });
            }
        }
        if last || position.step.is_multiple_of(settings.log_every) {
            telemetry.event(&clock.step(&mut position, model, &optimizer, learning_rate, done.grad_norm)?)?;
        }
    }
}

/// One optimizer step over its parts: the loss, the patches, and what the optimizer did. Characters weigh the same in whatever part they are.
pub fn run_step(
    settings: &Settings,
    model: &NotaGen,
    optimizer: &mut Optimizer,
    step: Step,
    learning_rate: f64,
    number: u64,
) -> Result<(f64, u64, StepReport)> {
    let tokens: i64 = step.iter().map(|batch| batch.tokens).sum();
    let patches: i64 = step.iter().map(|batch| batch.patches).sum();
    let mut total = Tensor::f_zeros([], (Kind::Float, model.device()))?;
    for (part, batch) in step.into_iter().enumerate() {
        let seed = stream::seed(settings.seed, Purpose::Dropout, [number, part as u64]) as i64;
        tch::manual_seed(seed);
        let autocast = settings.precision.kind();
        let checkpointing = settings.activation_checkpointing.then_some(Checkpointing { seed, autocast });
        let region = Autocast::new(model.device(), autocast)?;
        let loss = model.loss(&batch.to_device(model.device())?, Mode { train: true, checkpointing })?;
        drop(region);
        let loss = loss.sum.f_div_scalar(tokens)?;
        optimizer.scaled(&loss)?.f_backward()?;
        total = total.f_add(&loss.f_detach()?)?;
    }
    let report = optimizer.step(learning_rate)?;
    Ok((total.f_double_value(&[])?, patches as u64, report))
}

/// The pieces of a training and how its steps go through them.
struct Data {
    train: Arc<Dataset>,
    eval: Option<Arc<Dataset>>,
    plan: Plan,
    workers: usize,
    patch_length: i64,
    steps_per_epoch: u64,
    total_steps: u64,
}

impl Data {
    fn open(settings: &Settings, model: &NotaGen) -> Result<Data> {
        let architecture = model.architecture();
        let patchiliser = Patchiliser::new(architecture.patch_size as usize)?;
        let open = |path: &Path, pieces: Option<&str>| -> Result<Arc<Dataset>> {
            let (keys, length) = (settings.key_augmentation, architecture.patch_length as usize);
            Ok(Arc::new(Dataset::new(read_index(path, pieces)?, settings.seed, keys, patchiliser, length)))
        };
        let train = open(&settings.train, settings.pieces.as_deref())?;
        let pieces = settings.eval_pieces.as_deref().or(settings.pieces.as_deref());
        let eval = settings.eval.as_deref().map(|path| open(path, pieces)).transpose()?;
        let plan = Plan {
            batch_size: settings.batch_size,
            parts: settings.accumulation_steps,
            patch_sampling: settings.patch_sampling,
            shuffle: true,
            seed: settings.seed,
        };
        let steps_per_epoch = plan.steps(train.len());
        let total_steps = match settings.length {
            Length::Epochs(epochs) => epochs * steps_per_epoch,
            Length::Steps(steps) => steps,
        };
        let (workers, patch_length) = (settings.workers, architecture.patch_length);
        Ok(Data { train, eval, plan, workers, patch_length, steps_per_epoch, total_steps })
    }

    fn started(&self, resumed_from: u64) -> Event {
        Event::Started {
            train_pieces: self.train.len(),
            eval_pieces: self.eval.as_ref().map_or(0, |eval| eval.len()),
            steps_per_epoch: self.steps_per_epoch,
            total_steps: self.total_steps,
            resumed_from,
        }
    }

    fn epoch(&self, epoch: u64, first: u64) -> Loader {
        Loader::new(&self.train, self.plan, epoch, first, self.workers, self.patch_length)
    }

    fn evaluates(&self, settings: &Settings, position: &Position) -> bool {
        match settings.evaluate_every {
            Some(steps) => position.step.is_multiple_of(steps),
            None => position.step_in_epoch == 0,
        }
    }

    /// Every piece in the cut and key of epoch 0, so that evaluations compare. Without evaluation pieces there is
    /// no loss; told to stop there is nothing.
    fn evaluate(&self, settings: &Settings, model: &NotaGen, stop: &AtomicBool) -> Result<Option<Option<f64>>> {
        let Some(eval) = &self.eval else { return Ok(Some(None)) };
        let plan = Plan { parts: 1, patch_sampling: None, shuffle: false, ..self.plan };
        let plan = Plan { batch_size: plan.batch_size.div_ceil(settings.accumulation_steps), ..plan };
        let loader = Loader::new(eval, plan, 0, 0, self.workers, self.patch_length);
        Ok(evaluate(model, loader, settings.precision, stop)?.map(Some))
    }
}

/// Measures speed and counts the seconds of training.
struct Clock {
    since: Instant,
    logged: Instant,
    logged_at: (u64, f64, u64),
}

impl Clock {
    fn start(position: &Position) -> Clock {
        let now = Instant::now();
        Clock { since: now, logged: now, logged_at: (position.patches, position.loss_sum, position.loss_steps) }
    }

    /// Adds the time since the last reading to the training's.
    fn read(&mut self, position: &mut Position) {
        position.seconds += self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
    }

    fn step(
        &mut self,
        position: &mut Position,
        model: &NotaGen,
        optimizer: &Optimizer,
        learning_rate: f64,
        grad_norm: f64,
    ) -> Result<Event> {
        self.read(position);
        let (patches, loss_sum, loss_steps) = self.logged_at;
        // An evaluation in between starts the sums anew.
        let (loss_sum, loss_steps) = if position.loss_steps > loss_steps { (loss_sum, loss_steps) } else { (0.0, 0) };
        let steps = (position.loss_steps - loss_steps).max(1) as f64;
        let memory = match model.device() {
            tch::Device::Cpu => torch_ext::process_memory()?.resident,
            device => torch_ext::device_memory(device)?.allocated,
        };
        let event = Event::Step {
            step: position.step,
            epoch: position.current_epoch(),
            loss: (position.loss_sum - loss_sum) / steps,
            learning_rate,
            grad_norm,
            scale: optimizer.scale().map_or(1.0, |(scale, _)| scale),
            patches_per_second: (position.patches - patches) as f64 / self.logged.elapsed().as_secs_f64(),
            memory,
            skipped: position.skipped,
            seconds: position.seconds,
        };
        self.logged = Instant::now();
        self.logged_at = (position.patches, position.loss_sum, position.loss_steps);
        Ok(event)
    }
}
