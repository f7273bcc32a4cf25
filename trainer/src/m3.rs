//! Training of M3 by masked patches (arXiv 2410.13267, section 3.2; the original's `train_m3.py`).
use crate::data::{glob, read_index};
use crate::event::Observer;
use crate::loader::{in_order, shuffled};
use crate::objective::{Loss, MicroBatch, MicroBatchId, Objective, Split, Workload};
use crate::report::Outcome;
use crate::settings::Settings;
use crate::stream::{Purpose, stream};
use crate::{Error, Result};
use model::Mode;
use model::m3::{M3, M3Architecture, M3Batch, Masked, Masking, Patchiliser, mask, training_text};
use notation::corpus::{IndexedCorpus, PieceSource, list};
use notation::index::IndexEntry;
use notation::pack::is_pack;
use rand::Rng;
use rand::seq::SliceRandom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Tensor;

/// What pieces M3 learns from, and how much of them is masked.
#[derive(Debug, Clone, PartialEq)]
pub struct M3Params {
    /// A folder of interleaved ABC and MTF, its subfolders included, a packed corpus, or an index, whose pieces are
    /// taken in their own keys.
    pub train: PathBuf,
    /// What is evaluated on, likewise.
    pub eval: Option<PathBuf>,
    /// The portion of the training pieces that is evaluated on instead, without `eval`; rounded down to whole pieces.
    pub eval_split: f64,
    /// Glob on the names of the pieces.
    pub pieces: Option<String>,
    /// The portion of a piece's patches that is masked; rounded up.
    pub mask_ratio: f64,
}

/// Trains `model` by masked patches; see [`train()`](crate::train()).
pub fn train(
    settings: &Settings,
    m3: &M3Params,
    model: &M3,
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    settings.check()?;
    let objective = Arc::new(MaskedPatches::open(settings, m3, model)?);
    crate::train::train(settings, &objective, model, folder, stop, observer)
}

/// Pieces whose masked patches M3 predicts. An epoch has every piece once.
pub struct MaskedPatches {
    train: Vec<PieceSource>,
    eval: Vec<PieceSource>,
    seed: u64,
    step_size: usize,
    part_size: usize,
    mask_ratio: f64,
    patchiliser: Patchiliser,
    architecture: M3Architecture,
}

impl MaskedPatches {
    /// Lists the pieces, and splits off those to evaluate with: which they are depends on the names and the seed alone.
    pub fn open(settings: &Settings, m3: &M3Params, model: &M3) -> Result<MaskedPatches> {
        for (name, portion) in [("mask_ratio", m3.mask_ratio), ("eval_split", m3.eval_split)] {
            if !(0.0..=1.0).contains(&portion) || (name == "mask_ratio" && portion == 0.0) {
                return Err(Error::Config(format!("{name} is {portion}: it must be a portion of 1")));
            }
        }
        let mut train = pieces(&m3.train, m3.pieces.as_deref())?;
        let eval = match &m3.eval {
            Some(eval) => pieces(eval, m3.pieces.as_deref())?,
            None => {
                let count = (m3.eval_split * train.len() as f64) as usize;
                train.shuffle(&mut stream(settings.seed, Purpose::Split, [0, 0]));
                train.drain(..count).collect()
            }
        };
        if train.is_empty() {
            return Err(Error::Config(format!("eval_split is {}: no piece is left to train on", m3.eval_split)));
        }
        let architecture = model.architecture();
        Ok(MaskedPatches {
            train,
            eval,
            seed: settings.seed,
            step_size: settings.step_size(),
            part_size: settings.part_size(),
            mask_ratio: m3.mask_ratio,
            patchiliser: Patchiliser::new(architecture.patch_size as usize)?,
            architecture: architecture.clone(),
        })
    }

    /// A piece as an epoch has it: its cut and its mask depend on (seed, epoch, index) alone. In evaluations it is the
    /// piece's beginning, unmasked.
    fn piece(&self, id: MicroBatchId, index: usize) -> Result<Masked> {
        let (pieces, masking, purpose) = match id.split {
            Split::Train => (&self.train, Masking::Train, Purpose::Piece),
            Split::Eval => (&self.eval, Masking::Eval, Purpose::Split),
        };
        let piece = &pieces[index];
        let named = |source| Error::Piece { path: piece.path(), source };
        let mut rng = stream(self.seed, purpose, [id.epoch, 1 + index as u64]);
        let mut pick = |n| rng.random_range(0..n);
        let cut: Option<&mut dyn FnMut(usize) -> usize> = match id.split {
            Split::Train => Some(&mut pick),
            Split::Eval => None,
        };
        // Errors of reading name the file already.
        let text = training_text(piece)?;
        let patches =
            self.patchiliser.encode_cut(&text, self.architecture.patch_length as usize, cut).map_err(named)?;
        Ok(mask(patches, self.mask_ratio, masking, &mut pick))
    }
}

impl Objective for MaskedPatches {
    type Network = M3;
    type Input = M3Batch;

    fn examples(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train.len(),
            Split::Eval => self.eval.len(),
        }
    }

    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        shuffled(self.train.len(), self.step_size, self.seed, epoch)
    }

    fn evaluation(&self) -> Vec<Vec<usize>> {
        in_order(self.eval.len(), self.part_size)
    }

    fn load(&self, id: MicroBatchId, examples: &[usize]) -> Result<MicroBatch<M3Batch>> {
        let mut pieces = examples.iter().map(|&i| self.piece(id, i)).collect::<Result<Vec<_>>>()?;
        // Pieces of one length that lie together share one attention call.
        pieces.sort_by_key(|piece| piece.input.len());
        let input = M3Batch::new(&pieces, self.architecture.patch_size, self.architecture.patch_length)?;
        let counts = (pieces.len() as i64, input.patches, input.predicted(), input.tokens);
        let a = &self.architecture;
        let work = Workload::of(counts, |n| a.patch_operations(n), |n| a.character_operations(n));
        Ok(MicroBatch { weight: input.tokens, work, input })
    }

    fn tensors(batch: &mut M3Batch) -> Vec<&mut Tensor> {
        batch.tensors_mut()
    }

    fn loss(&self, network: &M3, batch: M3Batch, mode: Mode) -> Result<Loss> {
        let loss = network.loss(&batch.to_device(network.device())?, mode)?;
        Ok(Loss { sum: loss.sum, values: None })
    }
}

/// The pieces of a folder, a packed corpus or an index that match the glob, or all without one, in the order of their names
/// or of the index.
fn pieces(path: &Path, pattern: Option<&str>) -> Result<Vec<PieceSource>> {
    if path.is_file() && !is_pack(path) {
        let entries = read_index(path, pattern)?;
        let corpus = Arc::new(IndexedCorpus::open(&entries)?);
        let source = |entry: IndexEntry| Ok(PieceSource::Listed(Arc::clone(&corpus), entry.clone(), entry.key()?));
        let sources = entries.into_iter().map(source);
        return sources.collect::<std::result::Result<_, notation::Error>>().map_err(Error::from);
    }
    let glob = pattern.map(glob).transpose()?;
    let mut found = list(path, &["abc", "mtf"])?;
    found.retain(|piece| glob.as_ref().is_none_or(|glob| glob.is_match(piece.path().file_stem().unwrap_or_default())));
    if found.is_empty() {
        return Err(Error::Empty { path: path.to_owned(), pattern: pattern.map(str::to_owned) });
    }
    Ok(found)
}
