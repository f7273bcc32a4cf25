//! Pieces as features: M3's encoder, averaged over patches, and CLaMP 2's projection (arXiv 2410.13267, section 3.3;
//! the original's `CLaMP2Model.get_music_features` and `extract_clamp2.py`).

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::bert::{Encoder, pool};
use super::patch_runs::PatchRuns;
use super::segments::{Segment, segments};
use super::{M3Architecture, Patchiliser};
use crate::gpt2::Mode;
use crate::patches::Patches;
use crate::weights::{Checkpoint, m3_architecture};
use crate::{Error, Result};

/// Patches of one pass: what keeps the processor busy and its memory small.
const PATCHES_AT_ONCE_CPU: usize = 2048;
const PATCHES_AT_ONCE_GPU: usize = 16384;

/// The encoder of music, from a file of CLaMP 2 or of M3.
pub struct MusicEncoder {
    architecture: M3Architecture,
    encoder: Encoder,
    /// CLaMP 2's, (width, hidden) and (width).
    projection: Option<(Tensor, Tensor)>,
}

impl MusicEncoder {
    /// Reads the encoder of a CLaMP 2 or an M3, and nothing else of the file: CLaMP 2's text model stays on the disk.
    /// `kind` is what the encoder computes in, `Float`, `BFloat16` or `Half`.
    pub fn load(path: &Path, device: Device, kind: Kind) -> Result<MusicEncoder> {
        if !matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half) {
            return Err(Error::Invalid(format!(
                "features are computed in float32, bfloat16 or float16, not in {kind:?}"
            )));
        }
        let checkpoint = Checkpoint::open(path)?;
        let state = checkpoint.state();
        let (architecture, prefix) = m3_architecture(state)?;
        let mut source = |name: String, shape: &[i64], _| {
            // The patch embedding adds up as many rows as a patch has characters: in float32 whatever the kind.
            let kind = if name.contains("patch_embedding") { Kind::Float } else { kind };
            Ok(state.require(&name, shape, device)?.f_to_kind(kind)?)
        };
        let mut encoder = Encoder::new(&mut source, prefix, &architecture)?;
        encoder.freeze()?;
        let width = state.get("music_proj.weight").and_then(|weight| weight.shape().first().copied());
        let projection = width.map(|width| -> Result<_> {
            let get = |name, shape: &[i64]| Ok::<_, Error>(state.require(name, shape, device)?.f_to_kind(Kind::Float)?);
            let weight = get("music_proj.weight", &[width, architecture.hidden_size])?;
            Ok((weight, get("music_proj.bias", &[width])?))
        });
        Ok(MusicEncoder { encoder, projection: projection.transpose()?, architecture })
    }

    /// Its sizes; `token_layers` is 0 for CLaMP 2.
    pub fn architecture(&self) -> &M3Architecture {
        &self.architecture
    }

    /// Numbers in a feature.
    pub fn width(&self) -> i64 {
        self.projection.as_ref().map_or(self.architecture.hidden_size, |(weight, _)| weight.size()[0])
    }

    /// What cuts texts into its patches.
    pub fn patchiliser(&self) -> Result<Patchiliser> {
        Patchiliser::new(self.architecture.patch_size as usize)
    }

    /// The features of pieces, (pieces, width) in float32 on the CPU. Long pieces are seen in parts, whose features
    /// are averaged by length. Pieces do not influence each other.
    pub fn embed(&self, pieces: &[Patches]) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        if let Some(empty) = pieces.iter().position(Patches::is_empty) {
            return Err(Error::Invalid(format!("piece {empty} has no patches")));
        }
        let length = self.architecture.patch_length as usize;
        let of_piece = |(i, piece): (usize, &Patches)| segments(i, piece.len(), length);
        let mut segments: Vec<Segment> = pieces.iter().enumerate().flat_map(of_piece).collect();
        // Segments of one length lie together and share their attention.
        segments.sort_by_key(|segment| segment.patches.len());
        let mut sum = Tensor::f_zeros([pieces.len() as i64, self.width()], (Kind::Float, Device::Cpu))?;
        for some in self.parts(&segments) {
            let features = self.features(pieces, some)?;
            let weights: Vec<f32> = some.iter().map(|segment| segment.weight as f32).collect();
            let of: Vec<i64> = some.iter().map(|segment| segment.piece as i64).collect();
            let weighted = features.f_mul(&Tensor::from_slice(&weights).f_unsqueeze(1)?)?;
            sum = sum.f_index_add_(0, &Tensor::from_slice(&of), &weighted)?;
        }
        let totals: Vec<f32> = pieces.iter().map(|piece| piece.len() as f32).collect();
        Ok(sum.f_div(&Tensor::from_slice(&totals).f_unsqueeze(1)?)?)
    }

    /// (segments, width) on the CPU.
    fn features(&self, pieces: &[Patches], segments: &[Segment]) -> Result<Tensor> {
        let runs = segments.iter().map(|segment| (&pieces[segment.piece], segment.patches.clone()));
        let runs = PatchRuns::new(runs, self.architecture.patch_size)?.on_device(self.encoder.device())?;
        let mut features = pool(&self.encoder.forward(&runs, Mode::EVAL)?, &runs)?;
        if let Some((weight, bias)) = &self.projection {
            features = features.f_linear(weight, Some(bias))?;
        }
        Ok(features.f_to_device(Device::Cpu)?)
    }

    /// As many segments at once as are good for the device, one at least.
    fn parts<'a>(&self, segments: &'a [Segment]) -> Vec<&'a [Segment]> {
        let most = if self.encoder.device() == Device::Cpu { PATCHES_AT_ONCE_CPU } else { PATCHES_AT_ONCE_GPU };
        let mut parts = Vec::new();
        let (mut start, mut patches) = (0, 0);
        for (i, segment) in segments.iter().enumerate() {
            if i > start && patches + segment.patches.len() > most {
                parts.push(&segments[start..i]);
                (start, patches) = (i, 0);
            }
            patches += segment.patches.len();
        }
        parts.extend(Some(&segments[start..]).filter(|rest| !rest.is_empty()));
        parts
    }
}
