//! Runs of patches as the tensors of one pass of the encoder, without padding.

use std::ops::Range;

use tch::{Device, Tensor};
use torch_ext::send;

use crate::architecture::VOCABULARY;
use crate::patches::Patches;
use crate::sequences::{Lengths, Sequences};
use crate::{Error, Result};

/// As in [`crate::Batch`]: kernels are made for one number of rows.
const ROUNDED_TO: i64 = 32;

/// Runs of patches behind one another.
#[derive(Debug)]
pub(super) struct PatchRuns {
    /// (patches, rounded up; patch size): rows of the transposed patch embedding.
    pub(super) rows: Tensor,
    /// (patches, rounded up): place in the run.
    pub(super) position: Tensor,
    pub(super) sequences: Sequences,
    /// Patches.
    pub(super) patches: usize,
}

impl PatchRuns {
    /// Runs of one length share their attention where they follow each other.
    pub(super) fn new<'a>(runs: impl IntoIterator<Item = (&'a Patches, Range<usize>)>, size: i64) -> Result<PatchRuns> {
        let (mut rows, mut position, mut lengths) = (Vec::new(), Vec::new(), Lengths::default());
        for (piece, run) in runs {
            if piece.patch_size() as i64 != size {
                let (expected, found) = (vec![size], vec![piece.patch_size() as i64]);
                return Err(Error::Shape { what: "a patch".into(), expected, found });
            }
            lengths.push(run.len() as i64);
            for (place, patch) in run.enumerate() {
                position.push(place as i64);
                for (i, &c) in piece.row(patch).iter().enumerate() {
                    if i64::from(c) >= VOCABULARY {
                        return Err(Error::Invalid(format!("patch {patch}: character {c} is outside 0–127")));
                    }
                    rows.push(i as i64 * VOCABULARY + i64::from(c));
                }
            }
        }
        let patches = position.len();
        let sequences = lengths.long(ROUNDED_TO);
        let rounded = sequences.tokens();
        position.resize(rounded as usize, 0);
        rows.resize((rounded * size) as usize, 0);
        let rows = Tensor::from_slice(&rows).f_view([rounded, size])?;
        Ok(PatchRuns { rows, position: Tensor::from_slice(&position), sequences, patches })
    }

    /// All that goes to the device.
    pub(super) fn tensors(&mut self) -> Vec<&mut Tensor> {
        let mut tensors = vec![&mut self.rows, &mut self.position];
        tensors.extend(self.sequences.tensors());
        tensors
    }

    pub(super) fn on_device(mut self, device: Device) -> Result<PatchRuns> {
        send(&mut self.tensors(), device)?;
        Ok(self)
    }
}
