//! Going on from a checkpoint: one of ours, with its state beside it, or a file of the original's.
use super::folder::{state_path, step_files};
use crate::{Error, EvalHistory, Optimizer, Result, TrainPosition, TrainState, Trainable};
use model::pth::Value;
use model::weights::Checkpoint;
use std::path::Path;
use tch::Device;

/// The original's loss before the first evaluation.
pub(super) const NO_LOSS: f64 = 100.0;
/// The key under which old checkpoints have the state in themselves.
const OURS: &str = "notagen_train";

/// Loads the newest checkpoint of a folder, where there is one.
pub fn resume_newest(folder: &Path, network: &impl Trainable, optimizer: &mut Optimizer) -> Result<Option<TrainState>> {
    let Some(path) = step_files(folder)?.pop() else { return Ok(None) };
    let checkpoint = load(&path, network, optimizer)?;
    let beside = state_path(&path);
    let inside = || checkpoint.entry(OURS).and_then(Value::as_str).map(str::to_owned);
    let text = std::fs::read_to_string(&beside).ok().or_else(inside);
    let state: TrainState = text.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| {
        problem(&beside, "it is missing or cannot be read, and says where the training was".to_owned())
    })?;
    if let Some((scale, tracker)) = state.scale {
        optimizer.restore_scale(scale, tracker);
    }
    Ok(Some(state))
}

/// Goes on where a file of the original's stopped: weights, optimizer state and epoch.
pub fn resume_original(
    path: &Path,
    network: &impl Trainable,
    optimizer: &mut Optimizer,
    steps_per_epoch: u64,
) -> Result<TrainState> {
    let checkpoint = load(path, network, optimizer)?;
    let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let epoch = number(checkpoint.epoch()?);
    let step = epoch * steps_per_epoch;
    let scheduled = checkpoint.schedule()?.map_or(step, |schedule| number(Some(schedule.last_epoch)));
    let best_eval_loss = checkpoint.min_eval_loss()?.filter(|&loss| loss < NO_LOSS);
    let evaluations =
        EvalHistory { best_epoch: number(checkpoint.best_epoch()?), best_eval_loss, ..EvalHistory::default() };
    let position = TrainPosition { step, epoch, scheduled, ..TrainPosition::default() };
    Ok(TrainState { position, evaluations, ..TrainState::start() })
}

/// Loads weights and optimizer state.
fn load(path: &Path, network: &impl Trainable, optimizer: &mut Optimizer) -> Result<Checkpoint> {
    let _no_grad = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(path)?;
    network.load(&mut |name| Ok(checkpoint.state().load(name, Device::Cpu)?))?;
    let state = checkpoint.optimizer()?.ok_or_else(|| problem(path, "no optimizer state".to_owned()))?;
    let shapes: Vec<_> = network.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    state.check(path, &shapes)?;
    for (i, &index) in optimizer.indices.iter().enumerate() {
        let missing = || problem(path, format!("no optimizer state for parameter {index}"));
        let from = state.moments.get(&index).ok_or_else(missing)?;
        let to = &optimizer.state;
        let _ = to.steps[i].shallow_clone().f_fill_(from.step)?;
        to.exp_avgs[i].shallow_clone().f_copy_(&from.exp_avg.load(Device::Cpu)?)?;
        to.exp_avg_sqs[i].shallow_clone().f_copy_(&from.exp_avg_sq.load(Device::Cpu)?)?;
    }
    Ok(checkpoint)
}

fn problem(path: &Path, problem: String) -> Error {
    Error::Checkpoint { path: path.to_owned(), problem }
}
