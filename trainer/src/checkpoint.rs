//! Checkpoints: everything that a training needs to go on, in the original's `.pth` layout
//! (`{'model', 'optimizer', 'lr_sched', 'epoch', 'best_epoch', 'min_eval_loss'}`), and beside it, as JSON, where the training
//! is. The best weights and a checkpoint of the same step are one file with two names.
use crate::error::At;
use crate::objective::{Network, Work};
use crate::optimizer::Optimizer;
use crate::settings::Settings;
use crate::step::Done;
use crate::telemetry::Event;
use crate::train::Report;
use crate::{Error, Result};
use model::pth::{TensorValue, Value};
use model::weights::{self, Checkpoint, CheckpointParts, LrSchedule, Moments, OptimizerState, ParamGroup};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tch::{Device, Tensor};

/// Evaluations without a better loss that are called overfitting, where `early_stopping` does not say how many.
const TOO_MANY_WITHOUT_BETTER: u64 = 5;
/// The original's loss before the first evaluation.
const NO_LOSS: f64 = 100.0;
/// The key under which old checkpoints have the position in themselves.
const OURS: &str = "notagen_train";

/// Where a training is, and what it has added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
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
    /// Evaluations since the best one.
    pub without_better: u64,
    /// The epoch of the best evaluation.
    pub best_epoch: u64,
    /// The best evaluation's loss.
    pub best_eval_loss: Option<f64>,
    /// The training loss of then; not known of old checkpoints.
    #[serde(default)]
    pub best_train_loss: Option<f64>,
    /// The last evaluation's loss.
    pub eval_loss: Option<f64>,
    /// Mean training loss between the last two evaluations.
    pub train_loss: f64,
    /// Losses since the last evaluation, added up.
    pub loss_sum: f64,
    /// How many of them.
    pub loss_steps: u64,
    /// Patches trained on.
    pub patches: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The last epoch whose end the observer was told of.
    #[serde(default)]
    pub told_epoch: u64,
    /// Loss scale and finite steps since it grew.
    pub scale: Option<(f64, i64)>,
    /// What has been added up since the last log event.
    #[serde(default)]
    pub window: Window,
    /// Under `activation_checkpointing` each block has a dropout seed of its own; a training of an earlier program goes on
    /// without.
    #[serde(default)]
    pub distinct_seeds: bool,
}

/// Sums over the steps between two log events, skipped ones left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Steps.
    pub steps: u64,
    /// Their losses.
    pub loss: f64,
    /// The objective's other numbers.
    pub values: Vec<f64>,
}

impl Window {
    fn add(&mut self, done: &Done) {
        self.steps += 1;
        self.loss += done.loss;
        self.values.resize(done.values.len(), 0.0);
        for (sum, value) in self.values.iter_mut().zip(&done.values) {
            *sum += value;
        }
    }

    /// The means of the loss and of the other numbers.
    pub(crate) fn means(&self) -> (f64, Vec<f64>) {
        let steps = self.steps.max(1) as f64;
        (self.loss / steps, self.values.iter().map(|sum| sum / steps).collect())
    }
}

impl Position {
    /// Where a new training is.
    pub(crate) fn start() -> Position {
        Position { distinct_seeds: true, ..Position::default() }
    }

    /// The epoch that the last step belongs to, counted from 1.
    pub fn current_epoch(&self) -> u64 {
        if self.step_in_epoch == 0 { self.epoch.max(1) } else { self.epoch + 1 }
    }

    /// Of the learning rate at the next step.
    pub(crate) fn factor(&self, settings: &Settings) -> f64 {
        settings.factor(self.total_steps, self.scheduled)
    }

    /// A step has begun; what it comes to is not known yet.
    pub(crate) fn advance(&mut self, work: &Work, examples: usize, epoch_is_over: bool) {
        self.step += 1;
        self.step_in_epoch += 1;
        let before = if self.step_in_epoch == 1 { Some(0) } else { self.examples_in_epoch };
        self.examples_in_epoch = before.map(|before| before + examples as u64);
        self.patches += work.patches as u64;
        if epoch_is_over {
            self.epoch += 1;
            self.step_in_epoch = 0;
            self.examples_in_epoch = None;
        }
    }

    /// What the next step that had begun came to.
    pub(crate) fn settle(&mut self, done: &Done) {
        if done.report.skipped {
            self.skipped += 1;
            self.skipped_in_a_row += 1;
        } else {
            self.scheduled += 1;
            self.skipped_in_a_row = 0;
            self.loss_sum += done.loss;
            self.loss_steps += 1;
            self.window.add(done);
        }
    }

    /// Takes an evaluation in; without evaluation pieces the newest weights are the best.
    pub(crate) fn evaluated(&mut self, eval_loss: Option<f64>, early_stopping: Option<u64>) -> Evaluation {
        self.evaluation_due = false;
        self.train_loss = self.loss_sum / self.loss_steps.max(1) as f64;
        (self.loss_sum, self.loss_steps) = (0.0, 0);
        self.eval_loss = eval_loss;
        let best = match (eval_loss, self.best_eval_loss) {
            // What is not a number is better than nothing, and worse than anything else.
            (Some(loss), Some(best)) => loss < best || best.is_nan(),
            _ => true,
        };
        self.without_better = if best { 0 } else { self.without_better + 1 };
        if best {
            (self.best_epoch, self.best_eval_loss) = (self.current_epoch(), eval_loss);
            self.best_train_loss = Some(self.train_loss);
        }
        let event = eval_loss.map(|eval_loss| Event::Evaluated {
            step: self.step,
            epoch: self.current_epoch(),
            train_loss: self.train_loss,
            eval_loss,
            best,
            best_epoch: self.best_epoch,
            seconds: self.seconds,
        });
        let events = event.into_iter().chain(self.overfitting(early_stopping)).collect();
        Evaluation { best, events }
    }

    /// A warning, once for every best evaluation that is not bettered: what is learned no longer helps with other pieces.
    fn overfitting(&self, early_stopping: Option<u64>) -> Option<Event> {
        let (best, now) = self.best_eval_loss.zip(self.eval_loss)?;
        let train_best = self.best_train_loss?;
        if self.without_better != early_stopping.unwrap_or(TOO_MANY_WITHOUT_BETTER) || self.train_loss >= train_best {
            return None;
        }
        let message = format!(
            "overfitting: no better eval loss in {} evaluations, {best:.4} in epoch {} and {now:.4} in epoch {}, while the \
             training loss fell from {train_best:.4} to {:.4}; the weights of epoch {} are the best",
            self.without_better,
            self.best_epoch,
            self.current_epoch(),
            self.train_loss,
            self.best_epoch,
        );
        Some(Event::Warning { step: self.step, message })
    }

    /// Whether the evaluation loss has not fallen for as long as allowed.
    pub(crate) fn stopped_early(&self, early_stopping: Option<u64>) -> bool {
        early_stopping.is_some_and(|patience| self.without_better >= patience)
    }

    pub(crate) fn report(&self, best: PathBuf, last: PathBuf) -> Report {
        Report {
            steps: self.step,
            skipped: self.skipped,
            epochs: self.current_epoch(),
            best_epoch: self.best_epoch,
            best_eval_loss: self.best_eval_loss,
            final_eval_loss: self.eval_loss,
            train_loss: self.train_loss,
            seconds: self.seconds,
            patches: self.patches,
            best,
            last,
        }
    }
}

/// What an evaluation gave.
pub(crate) struct Evaluation {
    pub(crate) best: bool,
    pub(crate) events: Vec<Event>,
}

/// The checkpoints of one training, written in the background, one at a time.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    /// Rank 0 writes, the others do not.
    writes: bool,
    /// Nothing is trained any more: files are written from weights and moments where they are.
    still: bool,
    writing: Option<JoinHandle<Result<()>>>,
    /// The last copies, and the step that they are of.
    copies: Option<(u64, Copies)>,
    /// The last whole file, and the step that it is of.
    file: Option<(u64, PathBuf)>,
}

/// Copies of weights and moments (by the place of the parameter) in the CPU's memory. There are none where nothing is
/// written.
#[derive(Default)]
struct Copies {
    weights: Vec<(String, Tensor)>,
    moments: BTreeMap<usize, Moments>,
}

impl Checkpoints {
    /// The checkpoints in `folder/checkpoints`, of which the newest `keep` are kept.
    pub fn open(folder: &Path, keep: usize) -> Result<Checkpoints> {
        let folder = folder.join("checkpoints");
        std::fs::create_dir_all(&folder).at(&folder)?;
        // What a killed run was writing.
        for path in files(&folder, |name| name.starts_with('.') && name.ends_with(".part"))? {
            std::fs::remove_file(&path).at(&path)?;
        }
        // A position is written before its weights: killed between them, it left one without.
        for path in files(&folder, |name| name.starts_with("step_") && name.ends_with(".json"))? {
            if !path.with_extension("pth").is_file() {
                std::fs::remove_file(&path).at(&path)?;
            }
        }
        Ok(Checkpoints {
            folder,
            keep: keep.max(1),
            writes: true,
            still: false,
            writing: None,
            copies: None,
            file: None,
        })
    }

    /// Those that another process writes: nothing is touched here.
    pub(crate) fn of_another(folder: &Path) -> Checkpoints {
        Checkpoints {
            folder: folder.join("checkpoints"),
            keep: 1,
            writes: false,
            still: false,
            writing: None,
            copies: None,
            file: None,
        }
    }

    /// Where the best weights are.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best.pth")
    }

    /// Loads the newest checkpoint, where there is one.
    pub fn resume(&self, network: &impl Network, optimizer: &mut Optimizer) -> Result<Option<Position>> {
        let Some(path) = steps(&self.folder)?.pop() else { return Ok(None) };
        let checkpoint = load(&path, network, optimizer)?;
        let beside = beside(&path);
        let inside = || checkpoint.entry(OURS).and_then(Value::as_str).map(str::to_owned);
        let text = std::fs::read_to_string(&beside).ok().or_else(inside);
        let position: Position = text.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| {
            problem(&beside, "it is missing or cannot be read, and says where the training was".to_owned())
        })?;
        if let Some((scale, tracker)) = position.scale {
            optimizer.restore_scale(scale, tracker);
        }
        Ok(Some(position))
    }

    /// Goes on where a file of the original's stopped: weights, optimizer state and epoch.
    pub fn resume_from(
        &self,
        path: &Path,
        network: &impl Network,
        optimizer: &mut Optimizer,
        steps_per_epoch: u64,
    ) -> Result<Position> {
        let checkpoint = load(path, network, optimizer)?;
        let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let epoch = number(checkpoint.epoch()?);
        let step = epoch * steps_per_epoch;
        let schedule = checkpoint.schedule()?;
        Ok(Position {
            step,
            epoch,
            scheduled: schedule.map_or(step, |schedule| number(Some(schedule.last_epoch))),
            best_epoch: number(checkpoint.best_epoch()?),
            best_eval_loss: checkpoint.min_eval_loss()?.filter(|&loss| loss < NO_LOSS),
            ..Position::start()
        })
    }

    /// Saves what it takes to go on, in the background; older checkpoints are removed when it is there.
    pub fn save(
        &mut self,
        network: &impl Network,
        optimizer: &Optimizer,
        at: &Position,
        settings: &Settings,
    ) -> Result<PathBuf> {
        let path = self.folder.join(format!("step_{:09}.pth", at.step));
        self.copy(network, optimizer, at.step)?;
        if !self.writes {
            return Ok(path);
        }
        let position = Position { scale: optimizer.scale(), ..at.clone() };
        let parts = self.parts(network, &position, settings);
        let text = serde_json::to_string(&position).map_err(|e| Error::Settings(e.to_string()))?;
        let (folder, keep) = (self.folder.clone(), self.keep);
        let (beside_path, of) = (beside(&path), at.step);
        let before = move || whole(&beside_path, |part| std::fs::write(part, &text));
        self.write(of, path.clone(), parts, before, move || {
            let steps = steps(&folder)?;
            for old in &steps[..steps.len().saturating_sub(keep)] {
                std::fs::remove_file(old).at(old)?;
                let beside = beside(old);
                if beside.exists() {
                    std::fs::remove_file(&beside).at(&beside)?;
                }
            }
            Ok(())
        })?;
        Ok(path)
    }

    /// Saves the best weights, in the background, exactly in the original's layout.
    pub fn save_best(
        &mut self,
        network: &impl Network,
        optimizer: &Optimizer,
        at: &Position,
        settings: &Settings,
    ) -> Result<()> {
        self.copy(network, optimizer, at.step)?;
        if !self.writes {
            return Ok(());
        }
        let parts = self.parts(network, at, settings);
        self.write(at.step, self.best(), parts, || Ok(()), || Ok(()))
    }

    /// As [`Checkpoints::save_best`], the weights alone.
    pub fn save_weights(&mut self, network: &impl Network) -> Result<()> {
        if !self.writes {
            return Ok(());
        }
        self.finish()?;
        let model = weights_of(network)?;
        let (path, parts) = (self.best(), CheckpointParts { model, ..CheckpointParts::default() });
        self.begin(move || Ok(weights::save_checkpoint(&path, &parts)?));
        Ok(())
    }

    /// Copies what is to be written, once for all files of a step; all ranks gather it, for the one that writes.
    fn copy(&mut self, network: &impl Network, optimizer: &Optimizer, step: u64) -> Result<()> {
        if self.copies.as_ref().is_some_and(|(of, _)| *of == step) {
            return Ok(());
        }
        self.forget();
        // There is memory for one step's copies.
        self.finish()?;
        let mut copies = Copies::default();
        for (i, &place) in optimizer.places.iter().enumerate() {
            let moments = optimizer.moments(i)?;
            if self.writes {
                let [step, exp_avg, exp_avg_sq] = if self.still { moments } else { received(moments)? };
                let (exp_avg, exp_avg_sq) = (TensorValue::Loaded(exp_avg), TensorValue::Loaded(exp_avg_sq));
                copies.moments.insert(place, Moments { step: step.f_double_value(&[])?, exp_avg, exp_avg_sq });
            }
        }
        if self.writes {
            copies.weights = if self.still { network.state_dict() } else { weights_of(network)? };
        }
        self.copies = Some((step, copies));
        Ok(())
    }

    /// The training is over: what is saved from now on needs no copies in the CPU's memory, which take seconds to make.
    pub(crate) fn rest(&mut self) {
        self.still = true;
    }

    /// Lets go of the copies: the training goes on.
    pub(crate) fn forget(&mut self) {
        self.copies = None;
    }

    /// The state of a training, from the copies.
    fn parts(&self, network: &impl Network, at: &Position, settings: &Settings) -> CheckpointParts {
        let (base, factor) = (settings.learning_rate, at.factor(settings));
        let group = ParamGroup {
            initial_lr: Some(base),
            weight_decay: settings.weight_decay,
            ..ParamGroup::new(base * factor, network.parameters().len())
        };
        let (base_lrs, last_lr, last_epoch) = (vec![base], vec![base * factor], at.scheduled as i64);
        let copies = self.copies.iter().map(|(_, copies)| copies);
        let weights = copies.clone().flat_map(|copies| &copies.weights);
        let moments = copies.flat_map(|copies| copies.moments.clone()).collect();
        CheckpointParts {
            model: weights.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect(),
            optimizer: Some(OptimizerState { moments, groups: vec![group] }),
            schedule: Some(LrSchedule { base_lrs, last_lr, last_epoch }),
            epoch: Some(at.current_epoch() as i64),
            best_epoch: Some(at.best_epoch as i64),
            min_eval_loss: Some(at.best_eval_loss.unwrap_or(NO_LOSS)),
            notagen_train: None,
        }
    }

    /// Writes a step's file, or gives the one that there is another name.
    fn write(
        &mut self,
        step: u64,
        path: PathBuf,
        parts: CheckpointParts,
        before: impl FnOnce() -> Result<()> + Send + 'static,
        then: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let same = self.file.replace((step, path.clone())).filter(|(of, _)| *of == step);
        self.begin(move || {
            before()?;
            match same {
                Some((_, file)) if file != path => whole(&path, |part| {
                    std::fs::hard_link(&file, part).or_else(|_| std::fs::copy(&file, part).map(drop))
                })?,
                _ => weights::save_checkpoint(&path, &parts)?,
            }
            then()
        });
        Ok(())
    }

    /// Writes in the background, behind what is being written.
    fn begin(&mut self, write: impl FnOnce() -> Result<()> + Send + 'static) {
        let (before, folder) = (self.writing.take(), self.folder.clone());
        self.writing = Some(std::thread::spawn(move || {
            before.map_or(Ok(()), |before| joined(before, &folder))?;
            write()
        }));
    }

    /// Waits until what was saved is on the disk.
    pub fn finish(&mut self) -> Result<()> {
        self.writing.take().map_or(Ok(()), |writing| joined(writing, &self.folder))
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        // What was begun is finished even when the training ends with an error, which says more than this one would.
        let _ = self.finish();
    }
}

/// What a thread that writes came to.
fn joined(writing: JoinHandle<Result<()>>, path: &Path) -> Result<()> {
    let ended = || problem(path, "the thread that writes checkpoints has ended".to_owned());
    writing.join().unwrap_or_else(|_| Err(ended()))
}

fn problem(path: &Path, problem: String) -> Error {
    Error::Checkpoint { path: path.to_owned(), problem }
}

/// Where a checkpoint's position is.
fn beside(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("json")
}

/// Makes a file under a temporary name, and renames it when it is whole.
fn whole(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    if part.exists() {
        std::fs::remove_file(&part).at(&part)?;
    }
    make(&part).at(path)?;
    std::fs::File::open(&part).and_then(|file| file.sync_all()).at(&part)?;
    std::fs::rename(&part, path).at(path)?;
    // Renaming one name of a file to another of it does nothing, and says that it did.
    if part.exists() { std::fs::remove_file(&part).at(&part) } else { Ok(()) }
}

/// The step checkpoints in a folder, oldest first.
fn steps(folder: &Path) -> Result<Vec<PathBuf>> {
    files(folder, |name| name.starts_with("step_") && name.ends_with(".pth"))
}

/// The files of a folder whose names are wanted, in the order of their names.
fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        if wanted(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Copies of tensors in the CPU's memory.
fn received<const N: usize>(tensors: [Tensor; N]) -> Result<[Tensor; N]> {
    let copies = torch_ext::receive(&tensors)?;
    copies.try_into().map_err(|_| Error::Settings("a copy of a tensor is missing".to_owned()))
}

/// Copies of the weights in the CPU's memory; tied tensors stay tied.
fn weights_of(network: &impl Network) -> Result<Vec<(String, Tensor)>> {
    let (names, weights): (Vec<String>, Vec<Tensor>) = network.state_dict().into_iter().unzip();
    let mut places = HashMap::new();
    let mut different = Vec::new();
    let mut which = Vec::with_capacity(weights.len());
    for tensor in &weights {
        which.push(*places.entry(tensor.data_ptr() as usize).or_insert_with(|| {
            different.push(tensor.shallow_clone());
            different.len() - 1
        }));
    }
    let copies = torch_ext::receive(&different)?;
    Ok(names.into_iter().zip(which).map(|(name, i)| (name, copies[i].shallow_clone())).collect())
}

/// Loads weights and optimizer state.
fn load(path: &Path, network: &impl Network, optimizer: &mut Optimizer) -> Result<Checkpoint> {
    let _no_grad = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(path)?;
    network.load(&mut |name| Ok(checkpoint.state().load(name, Device::Cpu)?))?;
    let state = checkpoint.optimizer()?.ok_or_else(|| problem(path, "no optimizer state".to_owned()))?;
    let shapes: Vec<_> = network.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    state.check(path, &shapes)?;
    for (i, &place) in optimizer.places.iter().enumerate() {
        let missing = || problem(path, format!("no optimizer state for parameter {place}"));
        let from = state.moments.get(&place).ok_or_else(missing)?;
        let to = &optimizer.state;
        let _ = to.steps[i].shallow_clone().f_fill_(from.step)?;
        to.exp_avgs[i].shallow_clone().f_copy_(&from.exp_avg.load(Device::Cpu)?)?;
        to.exp_avg_sqs[i].shallow_clone().f_copy_(&from.exp_avg_sq.load(Device::Cpu)?)?;
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_evaluation_that_is_not_a_number_does_not_stay_the_best() {
        let mut position = Position::default();
        let best = [Some(f64::NAN), Some(f64::NAN), Some(3.0), Some(f64::NAN), Some(2.0)]
            .map(|loss| position.evaluated(loss, None).best);
        assert_eq!(best, [true, true, true, false, true]);
        assert_eq!(position.best_eval_loss, Some(2.0));
    }

    #[test]
    fn a_training_of_an_earlier_program_keeps_its_seeds_and_a_new_one_has_distinct_ones() {
        let written = serde_json::to_value(Position::start()).unwrap();
        assert!(serde_json::from_value::<Position>(written.clone()).unwrap().distinct_seeds);
        let mut earlier = written;
        earlier.as_object_mut().unwrap().remove("distinct_seeds");
        assert!(!serde_json::from_value::<Position>(earlier).unwrap().distinct_seeds);
    }
}
