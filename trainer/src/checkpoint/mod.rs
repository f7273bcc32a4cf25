//! Checkpoints: everything that a training needs to go on, in the original's `.pth` layout
//! (`{'model', 'optimizer', 'lr_sched', 'epoch', 'best_epoch', 'min_eval_loss'}`), and beside it, as JSON, its
//! [`TrainState`]. The best weights and a checkpoint of the same step are one file with two names.
mod copies;
mod folder;
mod load;

pub(crate) use folder::{best_path, step_path};
pub use load::{resume_newest, resume_original};

use crate::error::At;
use crate::files::{BackgroundWriter, write};
use crate::{Error, Optimizer, Result, Settings, TrainState, Trainable};
use copies::Copies;
use folder::{remove_old, state_path};
use model::weights::{self, CheckpointParts, LrSchedule, OptimizerState, ParamGroup};
use notation::files::link;
use std::path::{Path, PathBuf};

/// The checkpoints of one training, written in the background, one at a time.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    writes: bool,
    is_over: bool,
    writer: BackgroundWriter,
    /// The last copies, and the step that they are of.
    copies: Option<(u64, Copies)>,
    /// The last whole file, and the step that it is of.
    file: Option<(u64, PathBuf)>,
}

impl Checkpoints {
    /// The checkpoints in `folder/checkpoints`, of which the newest `keep` are kept. Rank 0 `writes`; the others touch
    /// nothing.
    pub fn open(folder: &Path, keep: usize, writes: bool) -> Result<Checkpoints> {
        let folder = folder.join("checkpoints");
        if writes {
            folder::open(&folder)?;
        }
        let writer = BackgroundWriter::default();
        Ok(Checkpoints { folder, keep: keep.max(1), writes, is_over: false, writer, copies: None, file: None })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Saves what it takes to go on, in the background; older checkpoints are removed when it is there.
    pub fn save(
        &mut self,
        network: &impl Trainable,
        optimizer: &Optimizer,
        state: &TrainState,
        settings: &Settings,
    ) -> Result<PathBuf> {
        let step = state.position.step;
        let path = step_path(&self.folder, step);
        self.copy(network, optimizer, step)?;
        if self.writes {
            let state = TrainState { scale: optimizer.scale(), ..state.clone() };
            let parts = self.parts(network, &state, settings);
            let text = serde_json::to_string(&state).map_err(|e| Error::Internal(e.to_string()))?;
            let (folder, keep, beside) = (self.folder.clone(), self.keep, state_path(&path));
            self.writer.begin(move || write(&beside, text.as_bytes()));
            self.write(step, path.clone(), parts);
            self.writer.begin(move || remove_old(&folder, keep));
        }
        Ok(path)
    }

    /// Saves the best weights, in the background, exactly in the original's layout.
    pub fn save_best(
        &mut self,
        network: &impl Trainable,
        optimizer: &Optimizer,
        state: &TrainState,
        settings: &Settings,
    ) -> Result<()> {
        self.copy(network, optimizer, state.position.step)?;
        if self.writes {
            let parts = self.parts(network, state, settings);
            self.write(state.position.step, best_path(&self.folder), parts);
        }
        Ok(())
    }

    /// As [`Checkpoints::save_best`], the weights alone.
    pub fn save_weights(&mut self, network: &impl Trainable) -> Result<()> {
        if self.writes {
            self.finish()?;
            let (path, model) = (best_path(&self.folder), copies::weights(network)?);
            let parts = CheckpointParts { model, ..CheckpointParts::default() };
            self.writer.begin(move || Ok(weights::save_checkpoint(&path, &parts)?));
        }
        Ok(())
    }

    /// Copies what is to be written, once for all files of a step; all ranks gather it, for the one that writes.
    fn copy(&mut self, network: &impl Trainable, optimizer: &Optimizer, step: u64) -> Result<()> {
        if self.copies.as_ref().is_none_or(|(of, _)| *of != step) {
            self.drop_copies();
            // There is memory for one step's copies.
            self.finish()?;
            self.copies = Some((step, Copies::gather(network, optimizer, self.writes, self.is_over)?));
        }
        Ok(())
    }

    /// There are no more steps: what is saved from now on needs no copies.
    pub(crate) fn training_is_over(&mut self) {
        self.is_over = true;
    }

    /// Frees the memory of the copies: the training goes on.
    pub(crate) fn drop_copies(&mut self) {
        self.copies = None;
    }

    /// The state of a training, from the copies.
    fn parts(&self, network: &impl Trainable, state: &TrainState, settings: &Settings) -> CheckpointParts {
        let (base, rate) = (settings.learning_rate, state.position.learning_rate(settings));
        let group = ParamGroup {
            initial_lr: Some(base),
            weight_decay: settings.weight_decay,
            ..ParamGroup::new(rate, network.parameters().len())
        };
        let last_epoch = state.position.scheduled as i64;
        let copies = self.copies.iter().map(|(_, copies)| copies);
        let weights = copies.clone().flat_map(|copies| &copies.weights);
        let moments = copies.flat_map(|copies| copies.moments.clone()).collect();
        CheckpointParts {
            model: weights.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect(),
            optimizer: Some(OptimizerState { moments, groups: vec![group] }),
            schedule: Some(LrSchedule { base_lrs: vec![base], last_lr: vec![rate], last_epoch }),
            epoch: Some(state.position.current_epoch() as i64),
            best_epoch: Some(state.evaluations.best_epoch as i64),
            min_eval_loss: Some(state.evaluations.best_eval_loss.unwrap_or(load::NO_LOSS)),
            notagen_train: None,
        }
    }

    /// Writes a step's file, or gives the one that there is another name.
    fn write(&mut self, step: u64, path: PathBuf, parts: CheckpointParts) {
        let same = self.file.replace((step, path.clone())).filter(|(of, _)| *of == step);
        self.writer.begin(move || match same {
            Some((_, file)) if file != path => link(&file, &path).at(&path),
            _ => Ok(weights::save_checkpoint(&path, &parts)?),
        });
    }

    /// Waits until what was saved is on the disk.
    pub fn finish(&mut self) -> Result<()> {
        self.writer.finish()
    }
}
