//! Runs of patches as the tensors of one pass of the encoder, without padding.

use std::ops::Range;

use tch::{Device, Tensor};

use crate::gpt2::{Group, push};
use crate::notagen::VOCABULARY;
use crate::patches::Patches;
use crate::{Error, Result};

/// As in [`crate::Batch`]: kernels are made for one number of rows.
const ROUNDED_TO: usize = 32;

/// Runs of patches behind one another.
#[derive(Debug)]
pub(super) struct Pack {
    /// (patches, rounded up; patch size): rows of the transposed patch embedding.
    pub(super) rows: Tensor,
    /// (patches, rounded up): place in the run.
    pub(super) position: Tensor,
    /// Runs of one length are one group; the last group rounds up, with runs of one patch.
    pub(super) groups: Vec<Group>,
    /// Patches.
    pub(super) patches: usize,
}

impl Pack {
    /// Runs of one length share their attention where they follow each other.
    pub(super) fn new<'a>(runs: impl IntoIterator<Item = (&'a Patches, Range<usize>)>, size: i64) -> Result<Pack> {
        let (mut rows, mut position, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for (piece, run) in runs {
            if piece.patch_size() as i64 != size {
                let (expected, found) = (vec![size], vec![piece.patch_size() as i64]);
                return Err(Error::Shape { what: "a patch".into(), expected, found });
            }
            push(&mut groups, run.len() as i64);
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
        let rounded = patches.next_multiple_of(ROUNDED_TO);
        groups.push(Group { rows: (rounded - patches) as i64, len: 1 });
        position.resize(rounded, 0);
        rows.resize(rounded * size as usize, 0);
        let rows = Tensor::from_slice(&rows).f_view([rounded as i64, size])?;
        Ok(Pack { rows, position: Tensor::from_slice(&position), groups, patches })
    }

    pub(super) fn on_device(mut self, device: Device) -> Result<Pack> {
        if device != Device::Cpu {
            self.rows = self.rows.f_to_device(device)?;
            self.position = self.position.f_to_device(device)?;
        }
        Ok(self)
    }
}
