//! The one loop of every training: steps, evaluations, checkpoints, telemetry.
use crate::checkpoint::{Checkpoints, Position};
use crate::evaluate::evaluate;
use crate::loader::{Loader, Workers};
use crate::objective::{Network, Objective, Set, Work};
use crate::optimizer::Optimizer;
use crate::ranks::Ranks;
use crate::settings::Settings;
use crate::step::{Begun, begin_step, finish_steps};
use crate::telemetry::{Event, Observer, Telemetry};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::Tensor;
use torch_ext::{ProfiledTurns, Span};

/// Steps in a row without a finite gradient that end a training. Loss scaling starts high and may need some.
const MOST_SKIPPED: u64 = 30;

/// Steps that may be begun before their numbers are read, however long a log window is.
const MOST_AHEAD: usize = 256;

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<R = Report> {
    /// It is complete.
    Finished(R),
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

/// Trains `network` in `folder`, from the newest checkpoint there or from the start.
///
/// The folder gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`. When `stop` is set the training saves and
/// returns [`Outcome::Interrupted`]. The result is the same with and without interruptions, on the CPU bit for bit.
pub fn train<O: Objective>(
    settings: &Settings,
    objective: &Arc<O>,
    network: &O::Network,
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    settings.check()?;
    let ranks = &settings.ranks;
    check_ranks(settings, &**objective, network)?;
    let mut optimizer = Optimizer::new(network, settings);
    let mut checkpoints = match ranks.is_first() {
        true => Checkpoints::open(folder, settings.keep_checkpoints)?,
        false => Checkpoints::of_another(folder),
    };
    let mut position = begin(settings, &**objective, network, &mut optimizer, &checkpoints)?;
    let mut left = left(&**objective, &position);
    let length = Steps::of(settings, &**objective, &position, left.len() as u64);
    position.total_steps = length.total;
    let mut telemetry = match ranks.is_first() {
        true => Telemetry::resume(folder, position.step, observer)?,
        false => Telemetry::silent(observer),
    };
    telemetry.event(&length.started(&**objective, position.step))?;
    for message in torch_ext::kernels::ready(network.device(), settings.precision.kind())? {
        telemetry.event(&Event::Warning { step: position.step, message })?;
    }
    let mut profile = settings
        .profile
        .filter(|_| ranks.is_first())
        .map(|steps| ProfiledTurns::new(steps, folder.join("profile.json"), network.device()));
    let mut clock = Clock::start();
    let mut ahead = Ahead::default();
    optimizer.follow(&length.rates(settings, &position));
    // Whether a rank was told to stop, as all of them know it.
    let mut stopping = false;
    let mut saved = position.step;
    let workers = Workers::new(settings.workers, network.device());
    let load = |epoch, first, steps: &[Vec<usize>]| {
        Loader::train(&workers, objective, (epoch, first), steps, ranks, settings.accumulation_steps)
    };
    let mut steps = load(position.epoch, position.step_in_epoch, &left);
    left.clear();

    loop {
        let aside = Instant::now();
        // Between steps ranks tell each other of it with the step, and here where work other than steps was done.
        let mut tells = ranks.size() == 1 || position.step_in_epoch == 0;
        if position.evaluation_due {
            ahead.settle(&mut position, settings, &mut telemetry)?;
            tells = true;
            if let Some(eval_loss) = evaluate(objective, network, settings, &workers, stop)? {
                clock.read(&mut position);
                let evaluation = position.evaluated(eval_loss, settings.early_stopping);
                for event in &evaluation.events {
                    telemetry.event(event)?;
                }
                // Where nothing is evaluated the last weights are the best, and checkpoints are enough until then.
                if evaluation.best && (eval_loss.is_some() || position.step >= length.total) {
                    save_best::<O>(&mut checkpoints, network, &optimizer, &position, settings)?;
                }
                clock.set_aside(aside);
            }
        }
        if !position.evaluation_due && position.step_in_epoch == 0 && position.told_epoch < position.epoch {
            ahead.settle(&mut position, settings, &mut telemetry)?;
            clock.read(&mut position);
            telemetry.epoch(position.epoch);
            clock.leave_out();
            // Told to stop meanwhile, it may have left its work undone.
            if !stop.load(Ordering::Relaxed) {
                position.told_epoch = position.epoch;
            }
        }
        let early = position.stopped_early(settings.early_stopping);
        let finished = !position.evaluation_due && (early || position.step >= length.total);
        if tells {
            stopping |= ranks.any(stop.load(Ordering::Relaxed))?;
        }
        let stopped = stopping && !finished;
        if finished || stopped || position.step >= saved + settings.checkpoint_every {
            ahead.settle(&mut position, settings, &mut telemetry)?;
            clock.read(&mut position);
            let aside = Instant::now();
            ranks.check_weights(network)?;
            let path = checkpoints.save(network, &optimizer, &position, settings)?;
            saved = position.step;
            clock.set_aside(aside);
            telemetry.event(&Event::Checkpoint { step: saved, path: path.clone() })?;
            if stopped {
                checkpoints.finish()?;
                return Ok(Outcome::Interrupted);
            }
            if finished {
                checkpoints.finish()?;
                // Gone on from a file whose loss was never reached again, there are no better ones than the last.
                if ranks.any(ranks.is_first() && !checkpoints.best().is_file())? {
                    save_best::<O>(&mut checkpoints, network, &optimizer, &position, settings)?;
                    checkpoints.finish()?;
                }
                if early {
                    telemetry.event(&Event::StoppedEarly { step: saved, best_epoch: position.best_epoch })?;
                }
                return Ok(Outcome::Finished(position.report(checkpoints.best(), path)));
            }
        }
        checkpoints.forget();
        let asked = Instant::now();
        let waiting = Span::new("wait for a batch");
        let Some(step) = steps.next() else {
            steps = load(position.epoch, 0, &objective.epoch(position.epoch));
            continue;
        };
        drop(waiting);
        // With work left the device did not wait.
        if torch_ext::is_idle(network.device()) {
            clock.waited += asked.elapsed();
        }
        if let Some(message) = workers.warning() {
            telemetry.event(&Event::Warning { step: position.step, message })?;
        }
        let loss = |mut input, mode| {
            torch_ext::send(&mut O::tensors(&mut input), network.device())?;
            objective.loss(network, input, mode)
        };
        let told = stop.load(Ordering::Relaxed);
        let begun = begin_step(settings, &mut optimizer, step?, position.step, told, loss)?;
        stopping |= ranks.size() > 1 && begun.stopped;
        position.advance(&begun.work, steps.examples(), steps.is_over());
        clock.work += begun.work;
        ahead.steps.push(begun);
        let last = position.step >= length.total;
        position.evaluation_due = last || evaluates(settings, &position);
        if let Some(profile) = &mut profile
            && let Some(path) = profile.turn(last)?
        {
            telemetry.event(&Event::Profiled { step: position.step, path: path.to_owned() })?;
        }
        let logs = last || position.step.is_multiple_of(settings.log_every);
        if logs || ahead.steps.len() == MOST_AHEAD {
            ahead.settle(&mut position, settings, &mut telemetry)?;
        }
        if logs {
            for event in clock.log(&mut position, &**objective, &optimizer, settings, &ahead)? {
                telemetry.event(&event)?;
            }
        }
    }
}

/// Steps whose numbers are on the device, and what the last said whose are not.
#[derive(Default)]
struct Ahead {
    steps: Vec<Begun>,
    learning_rate: f64,
    grad_norm: f64,
    scale: f64,
}

impl Ahead {
    /// Waits for the steps that were begun, and takes their numbers in.
    fn settle(&mut self, position: &mut Position, settings: &Settings, telemetry: &mut Telemetry) -> Result<()> {
        let steps = std::mem::take(&mut self.steps);
        let before = position.step - steps.len() as u64;
        for (done, step) in finish_steps(&settings.ranks, &steps)?.iter().zip(before + 1..) {
            self.learning_rate = settings.learning_rate * position.factor(settings);
            (self.grad_norm, self.scale) = (done.report.grad_norm, done.report.scale);
            position.settle(done);
            if done.report.skipped {
                telemetry.event(&Event::Skipped { step, loss: done.loss })?;
                if position.skipped_in_a_row >= MOST_SKIPPED {
                    return Err(Error::Diverged { steps: MOST_SKIPPED, step, loss: done.loss });
                }
            }
        }
        Ok(())
    }
}

/// Keeps the weights as they are as the best.
fn save_best<O: Objective>(
    checkpoints: &mut Checkpoints,
    network: &O::Network,
    optimizer: &Optimizer,
    position: &Position,
    settings: &Settings,
) -> Result<()> {
    match O::WEIGHTS_ALONE {
        true => checkpoints.save_weights(network),
        false => checkpoints.save_best(network, optimizer, position, settings),
    }
}

/// Refuses ranks that are not of one training.
fn check_ranks<O: Objective>(settings: &Settings, objective: &O, network: &O::Network) -> Result<()> {
    let ranks = &settings.ranks;
    let same = Settings { ranks: Ranks::default(), workers: 0, peak: None, profile: None, ..settings.clone() };
    let examples = [Set::Train, Set::Eval].map(|set| objective.examples(set));
    let shapes: Vec<_> = network.parameters().iter().map(|(name, tensor)| (name, tensor.size())).collect();
    ranks.check_same("settings", &format!("{same:?}"))?;
    ranks.check_same("pieces", &format!("{examples:?}"))?;
    ranks.check_same("parameters", &format!("{shapes:?}"))
}

/// Where the training begins: after the newest checkpoint, after the original's file, or at the start. On all ranks
/// weights, optimizer and position are those of rank 0.
fn begin<O: Objective>(
    settings: &Settings,
    objective: &O,
    network: &O::Network,
    optimizer: &mut Optimizer,
    checkpoints: &Checkpoints,
) -> Result<Position> {
    let ranks = &settings.ranks;
    let mut position = Position::default();
    if ranks.is_first() {
        position = match (checkpoints.resume(network, optimizer)?, &settings.resume_from) {
            (Some(position), _) => position,
            (None, Some(path)) => {
                let per_epoch = objective.epoch(0).len() as u64;
                checkpoints.resume_from(path, network, optimizer, per_epoch)?
            }
            (None, None) => position,
        };
    }
    if ranks.group().is_some() {
        let position_of_first = serde_json::to_string(&position).map_err(|e| Error::Settings(e.to_string()))?;
        position =
            serde_json::from_str(&ranks.tell(&position_of_first)?).map_err(|e| Error::Settings(e.to_string()))?;
        let weights: Vec<Tensor> = network.state_dict().into_iter().map(|(_, tensor)| tensor).collect();
        ranks.spread(&weights, 0)?;
        optimizer.spread(ranks)?;
        ranks.check_weights(network)?;
    }
    Ok(position)
}

/// The steps left of the epoch under way. After another number of ranks the examples that were not seen yet are the
/// same, in steps of another size.
fn left<O: Objective>(objective: &O, position: &Position) -> Vec<Vec<usize>> {
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

fn evaluates(settings: &Settings, position: &Position) -> bool {
    match settings.evaluate_every {
        Some(steps) => position.step.is_multiple_of(steps),
        None => position.step_in_epoch == 0,
    }
}

/// How long a training is.
struct Steps {
    per_epoch: u64,
    total: u64,
}

impl Steps {
    /// From a position with so many steps left of its epoch.
    fn of(settings: &Settings, objective: &impl Objective, position: &Position, left: u64) -> Steps {
        let per_epoch = objective.epoch(0).len() as u64;
        let epochs = settings.epochs.unwrap_or(0);
        let total = match settings.steps {
            Some(steps) => steps,
            None if position.epoch >= epochs => position.step,
            None => position.step + left + (epochs - position.epoch - 1) * per_epoch,
        };
        Steps { per_epoch, total }
    }

    /// The learning rates of the steps that are left, void ones not counted.
    fn rates(&self, settings: &Settings, position: &Position) -> Vec<f64> {
        let left = self.total.saturating_sub(position.step);
        let steps = position.scheduled..position.scheduled + left;
        steps.map(|step| settings.learning_rate * settings.factor(self.total, step)).collect()
    }

    fn started(&self, objective: &impl Objective, resumed_from: u64) -> Event {
        Event::Started {
            train_pieces: objective.examples(Set::Train),
            eval_pieces: objective.examples(Set::Eval),
            steps_per_epoch: self.per_epoch,
            total_steps: self.total,
            resumed_from,
        }
    }
}

/// Measures speed and counts the seconds of training.
struct Clock {
    since: Instant,
    logged: Instant,
    /// Since the last log: what was computed, and how long a step waited for its batch.
    work: Work,
    waited: Duration,
    /// Whether nothing has been logged yet.
    first: bool,
}

impl Clock {
    fn start() -> Clock {
        let now = Instant::now();
        Clock { since: now, logged: now, work: Work::default(), waited: Duration::ZERO, first: true }
    }

    /// Adds the time since the last reading to the training's.
    fn read(&mut self, position: &mut Position) {
        position.seconds += self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
    }

    /// Keeps the time since then, spent on an evaluation or a checkpoint, out of the speed of the steps.
    fn set_aside(&mut self, since: Instant) {
        self.logged += since.elapsed();
    }

    /// Leaves out the time since the last reading.
    fn leave_out(&mut self) {
        self.logged += self.since.elapsed();
        self.since = Instant::now();
    }

    /// The events of a log window's end; a new window begins.
    fn log<O: Objective>(
        &mut self,
        position: &mut Position,
        objective: &O,
        optimizer: &Optimizer,
        settings: &Settings,
        last: &Ahead,
    ) -> Result<Vec<Event>> {
        self.read(position);
        let (memory, memory_peak) = match optimizer.device() {
            tch::Device::Cpu => torch_ext::process_memory().map(|memory| (memory.resident, memory.peak))?,
            device => torch_ext::device_memory(device).map(|memory| (memory.allocated, memory.peak))?,
        };
        let elapsed = self.logged.elapsed().as_secs_f64();
        let (work, waited) = (std::mem::take(&mut self.work), std::mem::take(&mut self.waited));
        let peak = settings.peak.map(|peak| peak * settings.ranks.size() as f64);
        let (loss, values) = std::mem::take(&mut position.window).means();
        let values = O::VALUES.iter().map(|&name| name.to_owned()).zip(values).collect();
        let message = objective.warning(&values);
        let step = Event::Step {
            step: position.step,
            epoch: position.current_epoch(),
            loss,
            learning_rate: last.learning_rate,
            grad_norm: last.grad_norm,
            scale: last.scale,
            patches_per_second: work.patches / elapsed,
            tokens_per_second: work.tokens / elapsed,
            mfu: peak.map(|peak| work.operations / elapsed / peak),
            data_wait: waited.as_secs_f64() / elapsed,
            memory,
            memory_peak,
            skipped: position.skipped,
            seconds: position.seconds,
            values,
        };
        self.logged = Instant::now();
        let warning = message.map(|message| Event::Warning { step: position.step, message });
        let exchange = optimizer.exchange().filter(|_| std::mem::take(&mut self.first));
        let exchange = exchange.map(|exchange| Event::Exchange { step: position.step, exchange });
        Ok(std::iter::once(step).chain(warning).chain(exchange).collect())
    }
}
