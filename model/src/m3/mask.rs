//! Which patches M3 has to write, and what it sees in their place (arXiv 2410.13267, section 3.2; the original's
//! `mask_patches` in `code/utils.py`).

use crate::patches::{EOS, Patches};

/// Fills the patches that are masked.
const MASK: u8 = 3;

/// What happens to the patches that are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// Hidden eight times in ten, their characters shuffled once and left as they are once; all of a piece alike.
    Train,
    /// Left as they are.
    Eval,
}

/// A piece for M3 to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// What the encoder sees.
    pub input: Patches,
    /// The piece.
    pub target: Patches,
    /// Places of the patches that the decoder writes, in order.
    pub selected: Vec<usize>,
}

/// Chooses the share `ratio` of a piece's patches, rounded up; `pick` draws from `0..n`.
pub fn mask(target: Patches, ratio: f64, masking: Masking, pick: &mut dyn FnMut(usize) -> usize) -> Masked {
    let mut order: Vec<usize> = (0..target.len()).collect();
    shuffle(&mut order, pick);
    let count = (ratio * target.len() as f64).ceil() as usize;
    let mut selected = order[..count.min(order.len())].to_vec();
    selected.sort_unstable();
    let size = target.patch_size();
    let mut characters = target.characters().to_vec();
    match (masking, if masking == Masking::Train { pick(10) } else { 9 }) {
        (Masking::Train, 0..8) => {
            for &place in &selected {
                characters[place * size..(place + 1) * size].fill(MASK);
            }
        }
        (Masking::Train, 8) => {
            for &place in &selected {
                let patch = &mut characters[place * size..(place + 1) * size];
                let end = end(patch);
                shuffle(&mut patch[1..end], pick);
            }
        }
        _ => {}
    }
    Masked { input: Patches::from_characters(size, characters), target, selected }
}

/// Where the one mark of the end stands; a patch that has none or several counts whole.
fn end(patch: &[u8]) -> usize {
    let mut ends = patch.iter().enumerate().filter(|&(_, &c)| c == EOS).map(|(i, _)| i);
    match (ends.next(), ends.next()) {
        (Some(end), None) => end.max(1),
        _ => patch.len(),
    }
}

/// Fisher and Yates.
fn shuffle<T>(list: &mut [T], pick: &mut dyn FnMut(usize) -> usize) {
    for i in (1..list.len()).rev() {
        list.swap(i, pick(i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(patches: usize) -> Patches {
        let rows = |i: usize| [1, 65 + i as u8, 97, 98, 99, 2, 0, 0];
        Patches::from_characters(8, (0..patches).flat_map(rows).collect())
    }

    /// A linear congruential generator is random enough to count.
    fn picks(mut state: u64) -> impl FnMut(usize) -> usize {
        move |n| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        }
    }

    #[test]
    fn hidden_shuffled_and_kept_as_often_as_they_should_be() {
        let mut pick = picks(1);
        let (mut hidden, mut shuffled, mut kept) = (0, 0, 0);
        for _ in 0..4000 {
            let masked = mask(piece(20), 0.45, Masking::Train, &mut pick);
            assert_eq!(masked.selected.len(), 9);
            assert!(masked.selected.is_sorted());
            let changed: Vec<usize> = (0..20).filter(|&i| masked.input.row(i) != masked.target.row(i)).collect();
            assert!(changed.iter().all(|place| masked.selected.contains(place)));
            let first = masked.input.row(masked.selected[0]);
            match first {
                [3, 3, ..] => hidden += 1,
                _ if changed.is_empty() => kept += 1,
                _ => {
                    shuffled += 1;
                    let mut sorted = first.to_vec();
                    sorted[1..5].sort_unstable();
                    assert_eq!(sorted, masked.target.row(masked.selected[0]));
                }
            }
        }
        for (count, expected) in [(hidden, 3200.0), (shuffled, 400.0), (kept, 400.0)] {
            assert!((f64::from(count) - expected).abs() < 80.0, "{hidden}, {shuffled}, {kept}");
        }
    }

    #[test]
    fn evaluation_shows_everything_and_the_share_is_rounded_up() {
        let masked = mask(piece(21), 0.45, Masking::Eval, &mut picks(2));
        assert_eq!((masked.selected.len(), &masked.input), (10, &masked.target));
    }

    #[test]
    fn a_patch_with_no_end_or_several_is_shuffled_whole() {
        assert_eq!((end(&[1, 65, 2, 0]), end(&[1, 65, 66, 67]), end(&[1, 2, 2, 2])), (2, 4, 4));
    }
}
