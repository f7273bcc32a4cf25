//! The one loop of every training: steps, and what callbacks do between them.
use crate::callbacks::{Callback, Checkpointing, EarlyStopping, Epochs, Overfitting, Profiling};
use crate::clock::{Clock, Speed};
use crate::loader::{Loader, LoaderThreads};
use crate::metrics::Metrics;
use crate::telemetry::Telemetry;
use crate::training::{End, LastStep, Training};
use crate::{
    Checkpoints, Error, Objective, Observer, Optimizer, Outcome, Ranks, Result, Settings, Split, TrainEvent,
    TrainPosition, TrainState, Trainable, resume_newest, resume_original,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Tensor;
use torch_ext::ProfiledTurns;

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
    check_ranks(settings, &**objective, network)?;
    let threads = LoaderThreads::new(settings.workers, network.device());
    let mut training = begin(settings, objective, network, folder, stop, observer, &threads)?;
    let mut callbacks = callbacks(&training, folder);
    loop {
        if training.state.position.evaluation_due
            && let Some(evaluation) = training.evaluate()?
        {
            for callback in &mut callbacks {
                callback.after_evaluation(&mut training, &evaluation)?;
            }
        }
        if training.epoch_is_over() {
            for callback in &mut callbacks {
                callback.after_epoch(&mut training)?;
            }
        }
        let early = callbacks.iter().any(|callback| callback.ends_early(&training));
        let end = training.end(early)?;
        for callback in &mut callbacks {
            callback.before_step(&mut training, end)?;
        }
        match end {
            Some(End::Finished) => return Ok(Outcome::Finished(training.report())),
            Some(End::Interrupted) => return Ok(Outcome::Interrupted),
            None => {}
        }
        training.step()?;
        for callback in &mut callbacks {
            callback.after_step(&mut training)?;
        }
    }
}

/// What happens between steps. At each moment the callbacks are called in this order.
fn callbacks<O: Objective>(training: &Training<O>, folder: &Path) -> Vec<Box<dyn Callback<O>>> {
    let (settings, saved) = (training.settings, training.state.position.step);
    let profile = settings.profile.filter(|_| settings.ranks.is_first()).map(|steps| {
        let turns = ProfiledTurns::new(steps, folder.join("profile.json"), training.network.device());
        Box::new(Profiling(turns)) as Box<dyn Callback<O>>
    });
    let callbacks: [Box<dyn Callback<O>>; 5] = [
        Box::new(Overfitting),
        Box::new(Epochs),
        Box::new(Checkpointing { saved }),
        Box::new(EarlyStopping),
        Box::new(Metrics::default()),
    ];
    profile.into_iter().chain(callbacks).collect()
}

/// Refuses ranks that are not of one training.
fn check_ranks<O: Objective>(settings: &Settings, objective: &O, network: &O::Network) -> Result<()> {
    let ranks = &settings.ranks;
    let same = Settings { ranks: Ranks::default(), workers: 0, peak: None, profile: None, ..settings.clone() };
    let examples = [Split::Train, Split::Eval].map(|split| objective.examples(split));
    let shapes: Vec<_> = network.parameters().iter().map(|(name, tensor)| (name, tensor.size())).collect();
    ranks.check_same("settings", &format!("{same:?}"))?;
    ranks.check_same("pieces", &format!("{examples:?}"))?;
    ranks.check_same("parameters", &format!("{shapes:?}"))
}

/// Resumes a training, or starts it.
fn begin<'a, O: Objective>(
    settings: &'a Settings,
    objective: &'a Arc<O>,
    network: &'a O::Network,
    folder: &Path,
    stop: &'a AtomicBool,
    observer: &'a mut dyn Observer,
    threads: &'a LoaderThreads,
) -> Result<Training<'a, O>> {
    let ranks = &settings.ranks;
    let checkpoints = Checkpoints::open(folder, settings.keep_checkpoints, ranks.is_first())?;
    let mut optimizer = Optimizer::new(network, settings);
    let mut state = resume(settings, &**objective, network, &mut optimizer, checkpoints.folder())?;
    let resumed_from = state.position.step;
    let steps = rest_of_epoch(&**objective, &state.position);
    let steps_per_epoch = objective.epoch(0).len() as u64;
    let total_steps = total_steps(settings, &state.position, steps_per_epoch, steps.len() as u64);
    state.position.total_steps = total_steps;
    optimizer.set_learning_rates(&learning_rates(settings, &state.position));
    let mut telemetry = Telemetry::resume(ranks.is_first().then_some(folder), resumed_from, observer)?;
    let [train_pieces, eval_pieces] = [Split::Train, Split::Eval].map(|split| objective.examples(split));
    telemetry.event(&TrainEvent::Started { train_pieces, eval_pieces, steps_per_epoch, total_steps, resumed_from })?;
    for message in torch_ext::kernels::ready(network.device(), settings.precision.kind())? {
        telemetry.event(&TrainEvent::Warning { step: resumed_from, message })?;
    }
    let at = (state.position.epoch, state.position.step_in_epoch);
    Ok(Training {
        settings,
        objective,
        network,
        optimizer,
        checkpoints,
        telemetry,
        clock: Clock::resume(state.seconds),
        speed: Speed::default(),
        last: LastStep::default(),
        state,
        threads,
        epoch: Loader::train(threads, objective, at, &steps, ranks, settings.accumulation_steps),
        stop,
        stopping: false,
        in_flight: Vec::new(),
    })
}

/// Where the training begins: after the newest checkpoint, after the original's file, or at the start. On all ranks
/// weights, optimizer and state are those of rank 0.
fn resume<O: Objective>(
    settings: &Settings,
    objective: &O,
    network: &O::Network,
    optimizer: &mut Optimizer,
    checkpoints: &Path,
) -> Result<TrainState> {
    let ranks = &settings.ranks;
    let mut state = TrainState::start();
    if ranks.is_first() {
        state = match (resume_newest(checkpoints, network, optimizer)?, &settings.resume_from) {
            (Some(state), _) => state,
            (None, Some(path)) => {
                let per_epoch = objective.epoch(0).len() as u64;
                resume_original(path, network, optimizer, per_epoch)?
            }
            (None, None) => state,
        };
    }
    if ranks.group().is_some() {
        let fault = |error: serde_json::Error| Error::Internal(error.to_string());
        let text = ranks.broadcast_text(&serde_json::to_string(&state).map_err(fault)?)?;
        state = serde_json::from_str(&text).map_err(fault)?;
        let weights: Vec<Tensor> = network.state_dict().into_iter().map(|(_, tensor)| tensor).collect();
        ranks.broadcast(&weights, 0)?;
        optimizer.join(ranks)?;
        ranks.check_weights(network)?;
    }
    Ok(state)
}

/// The steps of a training, from a position with so many steps left of its epoch.
fn total_steps(settings: &Settings, position: &TrainPosition, steps_per_epoch: u64, left: u64) -> u64 {
    match (settings.steps, settings.epochs.unwrap_or(0)) {
        (Some(steps), _) => steps,
        (None, epochs) if position.epoch >= epochs => position.step,
        (None, epochs) => position.step + left + (epochs - position.epoch - 1) * steps_per_epoch,
    }
}

/// The learning rates of the steps that are left, if none of them is skipped.
fn learning_rates(settings: &Settings, position: &TrainPosition) -> Vec<f64> {
    let left = position.total_steps.saturating_sub(position.step);
    let steps = position.scheduled..position.scheduled + left;
    steps.map(|step| settings.learning_rate * settings.factor(position.total_steps, step)).collect()
}

/// The steps left of the epoch under way. If the number of ranks has changed, the examples that were not seen yet are the
/// same, in steps of another size.
fn rest_of_epoch<O: Objective>(objective: &O, position: &TrainPosition) -> Vec<Vec<usize>> {
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
