//! Random numbers that depend on the piece, and not on who makes it, with whom, or when.
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// `n` numbers from [0, 1), of 24 bits, for one patch of one attempt at one piece.
pub(super) fn uniform(seed: u64, piece: u64, attempt: u64, patch: u64, n: usize) -> Vec<f32> {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, piece, attempt, patch]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    let mut generator = ChaCha12Rng::from_seed(key);
    (0..n).map(|_| (generator.next_u32() >> 8) as f32 / (1 << 24) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_name_of_a_patch_changes_its_numbers() {
        let base = uniform(1, 2, 3, 4, 16);
        assert_eq!(base, uniform(1, 2, 3, 4, 16));
        for other in [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)] {
            assert_ne!(base, uniform(other.0, other.1, other.2, other.3, 16));
        }
        assert!(base.iter().all(|u| (0.0..1.0).contains(u)));
    }

    #[test]
    fn the_numbers_are_these_for_good() {
        let first: Vec<u32> = uniform(0, 0, 0, 0, 2).iter().map(|u| (u * (1 << 24) as f32) as u32).collect();
        assert_eq!(first, [6_986_484, 5_503_317]);
    }
}
