//! How a long piece is seen in parts (the original's `extract_feature` in `extract_clamp2.py`).

use std::ops::Range;

/// A part of a piece that the encoder sees at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The piece.
    pub(super) piece: usize,
    /// Its patches.
    pub(super) patches: Range<usize>,
    /// What its feature counts for in the piece's.
    pub(super) weight: usize,
}

/// A piece in segments of `length` patches. The last segment is the piece's last `length` patches, and counts for
/// those that the others do not have.
pub(super) fn segments(piece: usize, patches: usize, length: usize) -> impl Iterator<Item = Segment> {
    (0..patches).step_by(length).map(move |start| {
        let weight = length.min(patches - start);
        let end = start + weight;
        Segment { piece, patches: end.saturating_sub(length).min(start)..end, weight }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(patches: usize) -> Vec<(Range<usize>, usize)> {
        segments(0, patches, 4).map(|s| (s.patches, s.weight)).collect()
    }

    #[test]
    fn the_last_segment_is_whole_and_counts_for_the_rest() {
        assert_eq!(of(3), [(0..3, 3)]);
        assert_eq!(of(4), [(0..4, 4)]);
        assert_eq!(of(5), [(0..4, 4), (1..5, 1)]);
        assert_eq!(of(8), [(0..4, 4), (4..8, 4)]);
        assert_eq!(of(0), []);
    }
}
