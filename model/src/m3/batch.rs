//! Masked pieces as the tensors of one step of M3, without padding (the original's `collate_batch` in `train_m3.py`
//! and `M3TokenDecoder.forward`).

use tch::{Device, Tensor};
use torch_ext::send;

use super::Masked;
use super::patch_runs::PatchRuns;
use crate::architecture::VOCABULARY;
use crate::sequences::{Lengths, Sequences};
use crate::{Error, Result};

const TOKENS_ROUNDED_TO: i64 = 256;
/// A label that the cross-entropy ignores.
const NO_LABEL: i64 = -100;

/// The input of [`super::M3`]: all patches of all pieces for the encoder, and the characters of the selected patches
/// for the decoder, ordered by the patch's length.
#[derive(Debug)]
pub struct M3Batch {
    /// Pieces.
    pub pieces: i64,
    /// Patches of all pieces.
    pub patches: i64,
    /// Characters to predict: of each selected patch all but the first, which is a mark.
    pub tokens: i64,
    pub(super) runs: PatchRuns,
    /// (selected patches): the encoder's feature of each.
    pub(super) selected: Tensor,
    /// (tokens, rounded up): a character, or 128 + the selected patch where the patch's feature goes in.
    pub(super) char_rows: Tensor,
    /// (tokens, rounded up): place in the patch.
    pub(super) char_position: Tensor,
    pub(super) char_sequences: Sequences,
    /// (tokens): the character to predict.
    pub(super) labels: Tensor,
}

impl M3Batch {
    /// Patches whose characters are predicted.
    pub fn predicted(&self) -> i64 {
        self.selected.numel() as i64
    }

    /// Pieces of no more than `patch_length` patches of `patch_size` characters, with something to write in each.
    pub fn new(pieces: &[Masked], patch_size: i64, patch_length: i64) -> Result<M3Batch> {
        for (p, piece) in pieces.iter().enumerate() {
            let (len, of_target) = (piece.input.len() as i64, piece.target.len() as i64);
            if len > patch_length || len != of_target {
                let (expected, found) = (vec![patch_length, patch_size], vec![len, piece.input.patch_size() as i64]);
                return Err(Error::Shape { what: format!("piece {p}"), expected, found });
            }
        }
        let runs = PatchRuns::new(pieces.iter().map(|piece| (&piece.input, 0..piece.input.len())), patch_size)?;
        let (mut targets, mut first) = (Vec::new(), 0);
        for (p, piece) in pieces.iter().enumerate() {
            for &place in &piece.selected {
                let row = piece.target.row(place);
                let content = row.iter().rposition(|&c| c != 0).map_or(0, |last| last + 1);
                if content > 1 {
                    targets.push((content, p, place, first + place as i64));
                }
            }
            first += piece.input.len() as i64;
        }
        // A stable sort: patches of one length lie together and become one group of attention.
        targets.sort_by_key(|target| target.0);
        let (mut rows, mut position, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut lengths = Lengths::default();
        for (i, &(content, p, place, _)) in targets.iter().enumerate() {
            let characters = &pieces[p].target.row(place)[..content];
            for (t, &c) in characters[1..].iter().enumerate() {
                rows.push(if t == 0 { VOCABULARY + i as i64 } else { i64::from(characters[t]) });
                position.push(t as i64);
                labels.push(if c == 0 { NO_LABEL } else { i64::from(c) });
            }
            lengths.push(content as i64 - 1);
        }
        let char_sequences = lengths.short(TOKENS_ROUNDED_TO);
        rows.resize(char_sequences.tokens() as usize, 0);
        position.resize(char_sequences.tokens() as usize, 0);
        let selected: Vec<i64> = targets.iter().map(|target| target.3).collect();
        Ok(M3Batch {
            pieces: pieces.len() as i64,
            patches: runs.patches as i64,
            tokens: labels.iter().filter(|&&label| label != NO_LABEL).count() as i64,
            runs,
            selected: Tensor::from_slice(&selected),
            char_rows: Tensor::from_slice(&rows),
            char_position: Tensor::from_slice(&position),
            char_sequences,
            labels: Tensor::from_slice(&labels),
        })
    }

    /// All that goes to the device.
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut tensors = self.runs.tensors();
        tensors.extend([&mut self.selected, &mut self.char_rows, &mut self.char_position, &mut self.labels]);
        tensors.extend(self.char_sequences.tensors());
        tensors
    }

    /// The batch on another device.
    pub fn to_device(mut self, device: Device) -> Result<M3Batch> {
        send(&mut self.tensors_mut(), device)?;
        Ok(self)
    }
}
