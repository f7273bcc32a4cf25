//! Random streams that depend on what they are for, and on nothing that ran before.
//!
//! A piece's cut, an epoch's order and a step's dropout are the same whatever the workers, the ranks or the
//! interruptions: the position of the training is all that there is to save.
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Order = 1,
    Piece = 2,
    Dropout = 3,
    Sampling = 4,
    Pair = 5,
    Split = 6,
    Digest = 7,
}

/// The seed of a purpose's stream at a place: the two numbers say where in the training.
pub(crate) fn seed(seed: u64, purpose: Purpose, place: [u64; 2]) -> u64 {
    [purpose as u64, place[0], place[1]].iter().fold(mix(seed), |state, &part| mix(state ^ mix(part)))
}

/// The stream of a purpose at a place.
pub(crate) fn stream(run: u64, purpose: Purpose, place: [u64; 2]) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed(run, purpose, place))
}

/// SplitMix64's output function (Steele et al. 2014).
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn places_do_not_share_a_stream() {
        let places = (0..100).flat_map(|a| (0..100).map(move |b| [a, b]));
        let seeds: HashSet<u64> = places
            .flat_map(|place| [Purpose::Order, Purpose::Piece, Purpose::Dropout].map(|purpose| seed(0, purpose, place)))
            .collect();
        assert_eq!(seeds.len(), 30_000);
    }
}
