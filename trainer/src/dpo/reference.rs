//! The reference's log-probabilities, computed once and kept in the stage's folder, so that the reference is not in
//! memory while the policy is trained.
use super::preferences::Preferences;
use crate::error::At;
use crate::files::write;
use crate::{Dtype, Error, Observer, Result, Settings, TrainEvent, Trainable};
use model::patches::Patches;
use model::{Batch, Mode, NotaGen};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

/// Time between two saves.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// Log-probabilities in nats, by the hash of a piece's patches.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    /// Of the weights and of the precision.
    fingerprint: String,
    log_probabilities: BTreeMap<String, f64>,
}

impl Reference {
    /// The log-probabilities of every piece's beginning and of every cut that the steps draw. They are read from `folder`;
    /// those that are missing, or another network's, are computed. Nothing if told to stop: what was computed is saved.
    pub(super) fn prepare(
        preferences: &Preferences,
        settings: &Settings,
        steps: u64,
        network: &NotaGen,
        folder: &Path,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Reference>> {
        let path = folder.join("reference.json");
        let ranks = &settings.ranks;
        let mut reference = Reference::open(&path, fingerprint(network, settings.precision)?);
        if ranks.size() > 1 {
            reference = parse(&ranks.broadcast_text(&reference.text()?)?)?;
        }
        let needed = needed(preferences, settings, steps)?;
        let total = needed.len();
        let mut written = Instant::now();
        // Always in the same batches: the last bits do not depend on interruptions.
        let at_once = pieces_at_once(settings) * ranks.size();
        for (i, batch) in needed.chunks(at_once).enumerate() {
            if batch.iter().any(|(key, _)| !reference.log_probabilities.contains_key(key)) {
                let pieces: Vec<Patches> = batch.iter().map(|(_, piece)| piece.clone()).collect();
                let values = ranks.map_shards(&pieces, |mine| log_probabilities(network, settings, mine))?;
                reference.log_probabilities.extend(batch.iter().map(|(key, _)| key.clone()).zip(values));
                let done = (i * at_once + batch.len()).min(total);
                let stopped = ranks.any(stop.load(Ordering::Relaxed))?;
                if ranks.is_first() {
                    observer.event(&TrainEvent::Reference { done, total });
                }
                if ranks.is_first() && (done == total || stopped || written.elapsed() > SAVE_INTERVAL) {
                    reference.write(&path)?;
                    written = Instant::now();
                }
                if stopped {
                    return Ok(None);
                }
            }
        }
        Ok(Some(reference))
    }

    /// Reads the file, if it is this network's.
    fn open(path: &Path, fingerprint: String) -> Reference {
        let read = || serde_json::from_slice::<Reference>(&std::fs::read(path).ok()?).ok();
        let of_this = read().filter(|reference| reference.fingerprint == fingerprint);
        of_this.unwrap_or(Reference { fingerprint, log_probabilities: BTreeMap::new() })
    }

    fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::Internal(error.to_string()))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        std::fs::create_dir_all(&folder).at(&folder)?;
        let text = self.text()?;
        write(path, text.as_bytes())
    }

    /// The log-probability of a piece.
    pub(super) fn of(&self, piece: &Patches) -> Result<f64> {
        let known = self.log_probabilities.get(&key(piece)).copied();
        known.ok_or_else(|| Error::Internal("the reference has no log-probability of a piece".to_owned()))
    }
}

fn parse(text: &str) -> Result<Reference> {
    serde_json::from_str(text).map_err(|error| Error::Internal(error.to_string()))
}

/// Pieces that go through the network together: as many as in training.
pub(super) fn pieces_at_once(settings: &Settings) -> usize {
    2 * settings.batch_size / settings.accumulation_steps
}

/// Log-probabilities in evaluation mode. In the training's precision, so that rounding does not count as change.
pub(super) fn log_probabilities(network: &NotaGen, settings: &Settings, pieces: &[Patches]) -> Result<Vec<f64>> {
    let _no_grad = tch::no_grad_guard();
    let batch = Batch::new(pieces, network.architecture().patch_length)?.to_device(network.device())?;
    let _autocast = Autocast::new(network.device(), settings.precision.kind())?;
    Ok(Vec::try_from(network.log_probability(&batch, Mode::EVAL)?.f_to_kind(Kind::Double)?)?)
}

/// Every piece's beginning, and every other cut that the steps draw.
fn needed(preferences: &Preferences, settings: &Settings, steps: u64) -> Result<Vec<(String, Patches)>> {
    let (mut keys, mut needed) = (HashSet::new(), Vec::new());
    let mut add = |piece: Patches| {
        let key = key(&piece);
        if keys.insert(key.clone()) {
            needed.push((key, piece));
        }
    };
    for piece in preferences.beginnings() {
        add(piece?);
    }
    for step in 0..steps {
        for place in 0..settings.step_size() {
            preferences.pair_with_cut(settings.seed, step, place)?.into_iter().flatten().for_each(&mut add);
        }
    }
    Ok(needed)
}

fn key(piece: &Patches) -> String {
    let mut hash = Sha256::new();
    hash.update((piece.patch_size() as u64).to_le_bytes());
    hash.update(piece.characters());
    hex(&hash.finalize()[..16])
}

fn fingerprint(network: &NotaGen, precision: Dtype) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{precision:?}"));
    for (name, tensor) in Trainable::parameters(network) {
        hash.update(name);
        hash.update(format!("{:?}", tensor.size()));
        let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?;
        let numbers = Vec::<f32>::try_from(flat)?;
        let mut bytes = Vec::with_capacity(1 << 16);
        for chunk in numbers.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|number| number.to_le_bytes()));
            hash.update(&bytes);
        }
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A batch's reference values as a tensor.
pub(super) fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float)
}
