//! Pre-training, post-training and fine-tuning: the next character of pieces of music (the original's `train-gen.py`).
use crate::Result;
use crate::data::{Dataset, read_index};
use crate::event::Observer;
use crate::loader::{in_order, shuffled, shuffled_by_length};
use crate::objective::{Loss, MicroBatch, MicroBatchId, Objective, Split, Workload};
use crate::report::Outcome;
use crate::settings::{KeyAugmentation, Settings};
use crate::stream::{Purpose, stream};
use model::patches::{Patches, Patchiliser};
use model::{Architecture, Batch, Mode, NotaGen};
use rand::seq::index;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Tensor;

/// What pieces the network learns from, and how they are seen.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageParams {
    /// Index of the training pieces, `{"path": …, "key": …}` a line.
    pub train: PathBuf,
    /// Index of the evaluation pieces; without one the last weights are the best.
    pub eval: Option<PathBuf>,
    /// Glob on the names of the training pieces.
    pub pieces: Option<String>,
    /// Glob on the names of the evaluation pieces.
    pub eval_pieces: Option<String>,
    /// Which key a piece is trained in.
    pub key_augmentation: KeyAugmentation,
    /// Patches of each part that are predicted, drawn anew every step; 0 is all.
    pub patch_sampling: u64,
    /// Which pieces make a step.
    pub batch_by: BatchBy,
}

/// Which pieces make a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchBy {
    /// Any, as the original draws them.
    #[default]
    Random,
    /// Pieces of like length.
    Length,
}

/// Trains `model` on pieces of music; see [`train()`](crate::train()).
pub fn train(
    settings: &Settings,
    language: &LanguageParams,
    model: &NotaGen,
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    settings.check()?;
    let objective = Arc::new(Language::open(settings, language, model)?);
    crate::train::train(settings, &objective, model, folder, stop, observer)
}

/// The pieces of a training. An epoch has every piece once.
pub struct Language {
    train: Dataset,
    /// Of each training piece, where steps are made by length.
    lengths: Option<Vec<u64>>,
    eval: Option<Dataset>,
    seed: u64,
    step_size: usize,
    part_size: usize,
    /// Micro-batches of a step, on all ranks.
    parts: usize,
    patch_sampling: Option<usize>,
    architecture: Architecture,
}

impl Language {
    /// Reads the indexes. Errors name the index and the entry.
    pub fn open(settings: &Settings, language: &LanguageParams, model: &NotaGen) -> Result<Language> {
        let architecture = model.architecture();
        let patchiliser = Patchiliser::new(architecture.patch_size as usize)?;
        let open = |path: &Path, pieces: Option<&str>| -> Result<Dataset> {
            let (keys, length) = (language.key_augmentation, architecture.patch_length as usize);
            Dataset::new(read_index(path, pieces)?, settings.seed, keys, patchiliser, length)
        };
        let train = open(&language.train, language.pieces.as_deref())?;
        let pieces = language.eval_pieces.as_deref().or(language.pieces.as_deref());
        let lengths = match language.batch_by {
            BatchBy::Random => None,
            BatchBy::Length => Some(train.lengths()?),
        };
        Ok(Language {
            train,
            lengths,
            eval: language.eval.as_deref().map(|path| open(path, pieces)).transpose()?,
            seed: settings.seed,
            step_size: settings.step_size(),
            part_size: settings.part_size(),
            parts: settings.accumulation_steps * settings.ranks.size(),
            patch_sampling: usize::try_from(language.patch_sampling).ok().filter(|&patches| patches > 0),
            architecture: architecture.clone(),
        })
    }

    /// A batch that predicts `wanted` patches alone, drawn from all patches of its pieces.
    fn sampled(&self, patches: &[Patches], wanted: usize, id: MicroBatchId) -> Result<Batch> {
        let starts: Vec<usize> = patches
            .iter()
            .scan(0, |total, piece| {
                let start = *total;
                *total += piece.len() - 1;
                Some(start)
            })
            .collect();
        let total = patches.iter().map(|piece| piece.len() - 1).sum();
        let mut rng = stream(self.seed, Purpose::Sampling, [id.epoch, id.step * self.parts as u64 + id.index]);
        let mut chosen = vec![false; total];
        for place in index::sample(&mut rng, total, wanted.min(total)) {
            chosen[place] = true;
        }
        Ok(Batch::of_targets(patches, self.architecture.patch_length, |p, place| chosen[starts[p] + place - 1])?)
    }
}

impl Objective for Language {
    type Network = NotaGen;
    type Input = Batch;

    fn examples(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train.len(),
            Split::Eval => self.eval.as_ref().map_or(0, Dataset::len),
        }
    }

    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        match &self.lengths {
            None => shuffled(self.train.len(), self.step_size, self.seed, epoch),
            Some(lengths) => shuffled_by_length(lengths, self.step_size, self.seed, epoch),
        }
    }

    fn evaluation(&self) -> Vec<Vec<usize>> {
        in_order(self.examples(Split::Eval), self.part_size)
    }

    /// Evaluation pieces always have the cut and the key of epoch 0, so that evaluations compare.
    fn load(&self, id: MicroBatchId, examples: &[usize]) -> Result<MicroBatch<Batch>> {
        let (pieces, sampling) = match (id.split, &self.eval) {
            (Split::Eval, Some(eval)) => (eval, None),
            _ => (&self.train, self.patch_sampling),
        };
        let patches = examples.iter().map(|&i| pieces.piece(id.epoch, i)).collect::<Result<Vec<_>>>()?;
        let batch = match sampling {
            None => Batch::new(&patches, self.architecture.patch_length)?,
            Some(wanted) => self.sampled(&patches, wanted, id)?,
        };
        Ok(micro_batch(&self.architecture, batch))
    }

    fn tensors(batch: &mut Batch) -> Vec<&mut Tensor> {
        batch.tensors_mut()
    }

    fn loss(&self, network: &NotaGen, batch: Batch, mode: Mode) -> Result<Loss> {
        loss(network, batch, mode)
    }
}

/// A batch as a micro-batch: its loss is a mean over characters.
pub fn micro_batch(architecture: &Architecture, batch: Batch) -> MicroBatch<Batch> {
    MicroBatch { weight: batch.tokens, work: work(architecture, &batch), input: batch }
}

pub(crate) fn work(architecture: &Architecture, batch: &Batch) -> Workload {
    let counts = (batch.pieces, batch.patches, batch.predicted(), batch.tokens);
    Workload::of(counts, |n| architecture.patch_operations(n), |n| architecture.character_operations(n))
}

/// The negative log-probability of a batch's characters, summed.
pub fn loss(network: &NotaGen, batch: Batch, mode: Mode) -> Result<Loss> {
    let loss = network.loss(&batch.to_device(network.device())?, mode)?;
    Ok(Loss { sum: loss.sum, values: None })
}
