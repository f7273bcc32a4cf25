//! Says what a file of weights holds.

use std::path::Path;

use serde::Serialize;

use super::kind::{WeightsKind, is_float, kind_of};
use super::{Checkpoint, Error, StateDict, check_name, infer, m3_architecture};
use crate::pth;

/// What a file of weights holds. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// `notagen`, `m3` or `clamp2`.
    pub kind: Option<String>,
    /// Numbers that the network learns, as PyTorch counts them: tied tensors once, buffers not.
    pub parameters: i64,
    /// Characters in a patch.
    pub patch_size: Option<i64>,
    /// Patches that the network sees at once.
    pub patch_length: Option<i64>,
    /// Layers over patches.
    pub patch_layers: Option<i64>,
    /// Layers over characters.
    pub char_layers: Option<i64>,
    /// Width of the network.
    pub hidden_size: Option<i64>,
    /// The epoch after which it was saved.
    pub epoch: Option<i64>,
    /// The best evaluation loss.
    pub min_eval_loss: Option<f64>,
    /// The weights' element type in PyTorch's words (`float32`), or `mixed`.
    pub dtype: Option<String>,
    /// Such as a file name that contradicts the tensors.
    pub warnings: Vec<String>,
}

/// Says what a file holds without reading a single weight.
///
/// # Errors
/// A file that cannot be read or holds no weights, and a known network with missing, unknown or misshapen tensors, or
/// with one of a type that no network has.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let state = checkpoint.state();
    let kind = kind_of(state);
    let mut inspection = Inspection {
        kind: kind.map(|kind| kind.name().into()),
        parameters: parameters(state),
        patch_size: None,
        patch_length: None,
        patch_layers: None,
        char_layers: None,
        hidden_size: None,
        epoch: checkpoint.epoch()?,
        min_eval_loss: checkpoint.min_eval_loss()?,
        dtype: dtype(state),
        warnings: Vec::new(),
    };
    match kind {
        Some(WeightsKind::NotaGen) => inspection.notagen(state)?,
        Some(WeightsKind::M3 | WeightsKind::Clamp2) => inspection.m3(state)?,
        None => {}
    }
    Ok(inspection)
}

impl Inspection {
    fn notagen(&mut self, state: &StateDict) -> Result<(), Error> {
        let architecture = infer::architecture(state)?;
        if let Err(mismatch) = check_name(state.path(), &architecture) {
            self.warnings.push(mismatch.to_string());
        }
        self.patch_size = Some(architecture.patch_size);
        self.patch_length = Some(architecture.patch_length);
        self.patch_layers = Some(architecture.patch_layers);
        self.char_layers = Some(architecture.char_layers);
        self.hidden_size = Some(architecture.hidden_size);
        Ok(())
    }

    /// CLaMP 2's music encoder: a BERT over patches, and in M3 itself a GPT-2 over characters.
    fn m3(&mut self, state: &StateDict) -> Result<(), Error> {
        let (architecture, _) = match m3_architecture(state) {
            // Another size than the originals' code makes: it can be looked at, though not used.
            Err(error @ Error::Architecture { .. }) => {
                self.warnings.push(error.to_string());
                return Ok(());
            }
            found => found?,
        };
        self.patch_size = Some(architecture.patch_size);
        self.patch_length = Some(architecture.patch_length);
        self.patch_layers = Some(architecture.patch_layers);
        self.char_layers = Some(architecture.token_layers).filter(|layers| *layers > 0);
        self.hidden_size = Some(architecture.hidden_size);
        Ok(())
    }
}

fn parameters(state: &StateDict) -> i64 {
    let mut seen = std::collections::HashSet::new();
    let counted = state.iter().filter(|(name, tensor)| {
        let tied_by_name = name.strip_suffix("lm_head.weight").is_some_and(|prefix| {
            let embedding = state.get(&format!("{prefix}transformer.wte.weight"));
            embedding.is_some_and(|embedding| embedding.shape() == tensor.shape())
        });
        let place = (std::sync::Arc::as_ptr(tensor.storage()), tensor.offset(), tensor.shape().to_vec());
        is_float(tensor.kind()) && !tied_by_name && seen.insert(place)
    });
    counted.fold(0i64, |sum, (_, tensor)| sum.saturating_add(tensor.numel()))
}

fn dtype(state: &StateDict) -> Option<String> {
    let mut kinds: Vec<_> = state.iter().map(|(_, t)| t.kind()).filter(|kind| is_float(*kind)).collect();
    kinds.dedup();
    match &kinds[..] {
        [] => None,
        [kind] => Some(pth::kind_name(*kind).into()),
        _ => Some("mixed".into()),
    }
}
