//! The reference's log-probabilities, computed once and kept in the stage's folder, so that the reference is not in
//! memory while the policy is trained.
use super::preferences::Preferences;
use crate::error::At;
use crate::objective::Network;
use crate::precision::Dtype;
use crate::settings::Settings;
use crate::telemetry::{Event, Observer};
use crate::{Error, Result};
use model::patches::Patches;
use model::{Batch, Mode, NotaGen};
use notation::files::{Flush, write_atomically};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

/// Time between two writings of what has been computed.
const WRITE_EVERY: Duration = Duration::from_secs(30);

/// Log-probabilities in nats, by what a piece's patches hash to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    /// Of the weights, and the type that they ran in.
    fingerprint: String,
    log_probabilities: BTreeMap<String, f64>,
}

impl Reference {
    /// Of every piece's beginning and of every cut that the steps draw: read from `folder`, and computed with `network`
    /// where they are not there or are another network's. Nothing if told to stop; what has been done is kept.
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
            reference = parse(&ranks.tell(&reference.text()?)?)?;
        }
        let needed = needed(preferences, settings, steps)?;
        let total = needed.len();
        let mut written = Instant::now();
        // Always in the same batches, so that an interruption does not show in the last bits.
        let at_once = pieces_at_once(settings) * ranks.size();
        for (i, batch) in needed.chunks(at_once).enumerate() {
            if batch.iter().any(|(key, _)| !reference.log_probabilities.contains_key(key)) {
                let pieces: Vec<Patches> = batch.iter().map(|(_, piece)| piece.clone()).collect();
                let values = ranks.deal(&pieces, |mine| log_probabilities(network, settings, mine))?;
                reference.log_probabilities.extend(batch.iter().map(|(key, _)| key.clone()).zip(values));
                let done = (i * at_once + batch.len()).min(total);
                let stopped = ranks.any(stop.load(Ordering::Relaxed))?;
                if ranks.is_first() {
                    observer.event(&Event::Reference { done, total });
                }
                if ranks.is_first() && (done == total || stopped || written.elapsed() > WRITE_EVERY) {
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

    /// What is in the file, if it is this network's.
    fn open(path: &Path, fingerprint: String) -> Reference {
        let read = || serde_json::from_slice::<Reference>(&std::fs::read(path).ok()?).ok();
        let of_this = read().filter(|reference| reference.fingerprint == fingerprint);
        of_this.unwrap_or(Reference { fingerprint, log_probabilities: BTreeMap::new() })
    }

    fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::Settings(error.to_string()))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        std::fs::create_dir_all(&folder).at(&folder)?;
        let text = self.text()?;
        write_atomically(path, Flush::Later, |file| file.write_all(text.as_bytes())).at(path)
    }

    /// The log-probability of a piece.
    pub(super) fn of(&self, piece: &Patches) -> Result<f64> {
        let known = self.log_probabilities.get(&key(piece)).copied();
        known.ok_or_else(|| Error::Settings("a piece was not put before the reference".to_owned()))
    }
}

fn parse(text: &str) -> Result<Reference> {
    serde_json::from_str(text).map_err(|error| Error::Settings(error.to_string()))
}

/// Pieces that go through the network together: as many as in training.
pub(super) fn pieces_at_once(settings: &Settings) -> usize {
    2 * settings.batch_size / settings.accumulation_steps
}

/// Log-probabilities in evaluation mode, in the training's precision, so that its rounding does not count as change.
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
    for (name, tensor) in Network::parameters(network) {
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
