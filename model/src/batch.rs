//! Pieces of music as the tensors of one forward pass, without padding.
//!
//! The original pads pieces to the longest and patches to their full size (`collate_batch`, `CharLevelDecoder.forward`)
//! and masks what it added; here only what counts is computed, and a few tokens more: the kernels of matrix products
//! are made for one number of rows, so these numbers are rounded up to be met again.
use crate::architecture::VOCABULARY;
use crate::patches::Patches;
use crate::sequences::{Lengths, Sequences};
use crate::{Error, Result};
use tch::{Device, Tensor};
use torch_ext::send;

const PATCHES_ROUNDED_TO: i64 = 32;
const TOKENS_ROUNDED_TO: i64 = 256;

/// The input of [`crate::NotaGen`]: all patches of all pieces, and the characters of all patches but the first of
/// each piece, ordered by the patch's length.
#[derive(Debug)]
pub struct Batch {
    /// Pieces.
    pub pieces: i64,
    /// Patches of all pieces.
    pub patches: i64,
    /// Characters to predict, of all pieces.
    pub tokens: i64,
    /// (patches, rounded up; patch size): rows of the transposed patch embedding.
    pub(crate) patch_rows: Tensor,
    /// (patches, rounded up): place in the piece.
    pub(crate) patch_position: Tensor,
    pub(crate) patch_sequences: Sequences,
    /// (target patches): the patch whose feature predicts this one.
    pub(crate) source: Tensor,
    /// (tokens, rounded up): a character, or 128 + the target patch where the patch's feature goes in.
    pub(crate) char_rows: Tensor,
    /// (tokens, rounded up): place in the patch.
    pub(crate) char_position: Tensor,
    pub(crate) char_sequences: Sequences,
    /// (tokens): the character to predict.
    pub(crate) labels: Tensor,
    /// (tokens): the piece that the character belongs to.
    pub(crate) token_piece: Tensor,
    /// For each target patch in the order of `labels`: its piece and its place in the piece.
    pub(crate) targets: Vec<(usize, usize)>,
}

impl Batch {
    /// Every piece needs at least two patches of one size, no longer than `patch_length` patches.
    pub fn new(pieces: &[Patches], patch_length: i64) -> Result<Batch> {
        Batch::of_targets(pieces, patch_length, |_, _| true)
    }

    /// Patches whose characters are predicted.
    pub fn predicted(&self) -> i64 {
        self.targets.len() as i64
    }

    /// As [`Batch::new`], but predicts only the patches that `keep(piece, place)` chooses
    /// (the original's `PATCH_SAMPLING_BATCH_SIZE`).
    pub fn of_targets(pieces: &[Patches], patch_length: i64, keep: impl Fn(usize, usize) -> bool) -> Result<Batch> {
        let size = pieces.first().map_or(0, Patches::patch_size);
        let mut patch_rows = Vec::new();
        let mut patch_position = Vec::new();
        let mut patch_lengths = Lengths::default();
        let mut targets = Vec::new();
        let mut first = 0;
        for (p, piece) in pieces.iter().enumerate() {
            let expected = vec![patch_length, size as i64];
            let found = vec![piece.len() as i64, piece.patch_size() as i64];
            if piece.patch_size() != size || piece.len() as i64 > patch_length || piece.len() < 2 {
                return Err(Error::Shape { what: format!("piece {p} (at least 2 patches)"), expected, found });
            }
            for place in 0..piece.len() {
                let row = piece.row(place);
                for (i, &c) in row.iter().enumerate() {
                    if i64::from(c) >= VOCABULARY {
                        return Err(Error::Invalid(format!("piece {p}: character {c} is outside 0–127")));
                    }
                    patch_rows.push(i as i64 * VOCABULARY + i64::from(c));
                }
                patch_position.push(place as i64);
                let length = content(row);
                if place > 0 && length > 0 && keep(p, place) {
                    targets.push((length, p, place, first + place as i64 - 1));
                }
            }
            patch_lengths.push(piece.len() as i64);
            first += piece.len() as i64;
        }
        // A stable sort: patches of one length lie together and become one group of attention.
        targets.sort_by_key(|target| target.0);
        let mut batch = Targets::default();
        for (row, &(length, p, place, source)) in targets.iter().enumerate() {
            batch.push(row, &pieces[p].row(place)[..length], p, source);
        }
        let (patches, tokens) = (patch_position.len() as i64, batch.labels.len() as i64);
        // What rounds up sees none of the pieces, and none of them sees it.
        let patch_sequences = patch_lengths.long(PATCHES_ROUNDED_TO);
        let char_sequences = batch.lengths.short(TOKENS_ROUNDED_TO);
        let (rows, chars) = (patch_sequences.tokens() as usize, char_sequences.tokens() as usize);
        patch_position.resize(rows, 0);
        patch_rows.resize(rows * size, 0);
        batch.rows.resize(chars, 0);
        batch.position.resize(chars, 0);
        Ok(Batch {
            pieces: pieces.len() as i64,
            patches,
            tokens,
            patch_rows: Tensor::from_slice(&patch_rows).f_view([rows as i64, size as i64])?,
            patch_position: Tensor::from_slice(&patch_position),
            patch_sequences,
            source: Tensor::from_slice(&batch.source),
            char_rows: Tensor::from_slice(&batch.rows),
            char_position: Tensor::from_slice(&batch.position),
            char_sequences,
            labels: Tensor::from_slice(&batch.labels),
            token_piece: Tensor::from_slice(&batch.piece),
            targets: targets.iter().map(|&(_, p, place, _)| (p, place)).collect(),
        })
    }

    /// All that goes to the device.
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut tensors = vec![
            &mut self.patch_rows,
            &mut self.patch_position,
            &mut self.source,
            &mut self.char_rows,
            &mut self.char_position,
            &mut self.labels,
            &mut self.token_piece,
        ];
        tensors.extend(self.patch_sequences.tensors());
        tensors.extend(self.char_sequences.tensors());
        tensors
    }

    /// The batch on another device.
    pub fn to_device(mut self, device: Device) -> Result<Batch> {
        send(&mut self.tensors_mut(), device)?;
        Ok(self)
    }

    /// Characters to predict of each piece.
    pub fn characters_of_pieces(&self) -> Vec<i64> {
        let mut characters = vec![0; usize::try_from(self.pieces).unwrap_or(0)];
        for (piece, ..) in self.order() {
            characters[piece] += 1;
        }
        characters
    }

    /// For each predicted character, in the order of [`crate::NotaGen::logits`]: its piece, its patch, its place in
    /// the patch.
    pub fn order(&self) -> Vec<(usize, usize, usize)> {
        let lengths = self.char_sequences.lengths();
        let characters = |(&(p, place), len): (&(usize, usize), i64)| (0..len as usize).map(move |t| (p, place, t));
        self.targets.iter().zip(lengths).flat_map(characters).collect()
    }
}

#[derive(Default)]
struct Targets {
    source: Vec<i64>,
    rows: Vec<i64>,
    position: Vec<i64>,
    lengths: Lengths,
    labels: Vec<i64>,
    piece: Vec<i64>,
}

impl Targets {
    fn push(&mut self, row: usize, characters: &[u8], piece: usize, source: i64) {
        self.source.push(source);
        for (t, &c) in characters.iter().enumerate() {
            self.rows.push(if t == 0 { VOCABULARY + row as i64 } else { i64::from(characters[t - 1]) });
            self.position.push(t as i64);
            self.labels.push(i64::from(c));
            self.piece.push(piece as i64);
        }
        self.lengths.push(characters.len() as i64);
    }
}

/// Characters of a patch up to the special ones that fill it.
fn content(row: &[u8]) -> usize {
    row.iter().rposition(|&c| c != 0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequences::EqualRun;

    #[test]
    fn targets_are_grouped_by_length_and_know_where_they_came_from() {
        let piece = Patches::from_rows(4, &[&[1, 1, 1, 2], &[65, 66, 67, 68], &[65, 2, 0, 0], &[1, 2, 2, 2]]).unwrap();
        let batch = Batch::new(&[piece], 8).unwrap();
        assert_eq!((batch.patches, batch.tokens), (4, 10));
        assert_eq!(batch.char_sequences.equal_runs(), [EqualRun { rows: 1, len: 2 }, EqualRun { rows: 2, len: 4 }]);
        assert_eq!(batch.char_sequences.tokens(), 256);
        assert_eq!(batch.order()[..3], [(0, 2, 0), (0, 2, 1), (0, 1, 0)]);
        assert_eq!(Vec::<i64>::try_from(&batch.source).unwrap(), [1, 0, 2]);
        assert_eq!(Vec::<i64>::try_from(batch.char_rows.slice(0, 0, 4, 1)).unwrap(), [128, 65, 129, 65]);
    }

    #[test]
    fn pieces_that_do_not_fit_carry_both_shapes() {
        let piece = Patches::from_rows(2, &[&[1, 2], &[65, 2], &[66, 2]]).unwrap();
        let error = Batch::new(&[piece], 2).unwrap_err().to_string();
        assert!(error.contains("[2, 2]") && error.contains("[3, 2]"), "{error}");
    }
}
