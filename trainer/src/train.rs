//! The one loop of every training: steps, and what callbacks do between them.
use crate::callback::Callback;
use crate::callbacks::{Checkpointing, EarlyStopping, Epochs, Metrics, Overfitting, Profiling};
use crate::checkpoint::Checkpoints;
use crate::clock::{Clock, Speed};
use crate::event::{Observer, TrainEvent};
use crate::length::{StepCounts, rest_of_epoch};
use crate::loader::{Loader, LoaderThreads};
use crate::objective::{Objective, Split, Trainable};
use crate::optimizer::Optimizer;
use crate::ranks::Ranks;
use crate::report::{Outcome, TrainReport};
use crate::settings::Settings;
use crate::state::TrainState;
use crate::telemetry::Telemetry;
use crate::training::{End, LastStep, Training};
use crate::{Error, Result};
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
    let ranks = &settings.ranks;
    let checkpoints = match ranks.is_first() {
        true => Checkpoints::open(folder, settings.keep_checkpoints)?,
        false => Checkpoints::of_rank_0(folder),
    };
    let mut optimizer = Optimizer::new(network, settings);
    let mut state = resume(settings, &**objective, network, &mut optimizer, &checkpoints)?;
    let resumed_from = state.position.step;
    let steps = rest_of_epoch(&**objective, &state.position);
    let counts = StepCounts::of(settings, &**objective, &state.position, steps.len() as u64);
    state.position.total_steps = counts.total;
    optimizer.set_learning_rates(&counts.learning_rates(settings, &state.position));
    let mut telemetry = match ranks.is_first() {
        true => Telemetry::resume(folder, resumed_from, observer)?,
        false => Telemetry::silent(observer),
    };
    telemetry.event(&counts.started(&**objective, resumed_from))?;
    for message in torch_ext::kernels::ready(network.device(), settings.precision.kind())? {
        telemetry.event(&TrainEvent::Warning { step: resumed_from, message })?;
    }
    let files = checkpoints.folder().to_owned();
    let threads = LoaderThreads::new(settings.workers, network.device());
    let at = (state.position.epoch, state.position.step_in_epoch);
    let mut training = Training {
        settings,
        objective,
        network,
        optimizer,
        clock: Clock::resume(state.seconds),
        speed: Speed::default(),
        last: LastStep::default(),
        state,
        telemetry,
        epoch: Loader::train(&threads, objective, at, &steps, ranks, settings.accumulation_steps),
        threads: &threads,
        stop,
        stopping: false,
        in_flight: Vec::new(),
    };
    drop(steps);
    // At each moment they are called in this order.
    let mut callbacks: Vec<Box<dyn Callback<O>>> = vec![
        Box::new(Overfitting),
        Box::new(Epochs),
        Box::new(Checkpointing::new(checkpoints, resumed_from)),
        Box::new(EarlyStopping),
    ];
    if let Some(steps) = settings.profile.filter(|_| ranks.is_first()) {
        let turns = ProfiledTurns::new(steps, folder.join("profile.json"), network.device());
        callbacks.push(Box::new(Profiling(turns)));
    }
    callbacks.push(Box::new(Metrics::default()));

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
            Some(End::Finished) => return Ok(Outcome::Finished(TrainReport::of(&training.state_now(), &files))),
            Some(End::Interrupted) => return Ok(Outcome::Interrupted),
            None => {}
        }
        training.step()?;
        for callback in &mut callbacks {
            callback.after_step(&mut training)?;
        }
    }
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

/// Where the training begins: after the newest checkpoint, after the original's file, or at the start. On all ranks
/// weights, optimizer and state are those of rank 0.
fn resume<O: Objective>(
    settings: &Settings,
    objective: &O,
    network: &O::Network,
    optimizer: &mut Optimizer,
    checkpoints: &Checkpoints,
) -> Result<TrainState> {
    let ranks = &settings.ranks;
    let mut state = TrainState::default();
    if ranks.is_first() {
        state = match (checkpoints.resume(network, optimizer)?, &settings.resume_from) {
            (Some(state), _) => state,
            (None, Some(path)) => {
                let per_epoch = objective.epoch(0).len() as u64;
                checkpoints.resume_from(path, network, optimizer, per_epoch)?
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
