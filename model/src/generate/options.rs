//! What to write, and what is reported of it.
use super::batched::CudaGraphStats;
use super::track::{Failure, Outcome, Start};
use crate::sampling::Sampling;
use std::path::PathBuf;

/// What to write.
#[derive(Clone)]
pub struct Options<'a> {
    /// Pieces in all, numbered from 0; this run makes those of its shard that are not skipped.
    pub samples: usize,
    /// Pieces at once; chosen from the free memory where not given. The pieces do not depend on it.
    pub batch_size: Option<usize>,
    /// WrittenPiece i depends on the seed and i alone.
    pub seed: u64,
    /// How characters are drawn.
    pub sampling: Sampling,
    /// What the pieces begin with: piece i with number i of these, around and around. None is a start from nothing.
    pub starts: Vec<Start>,
    /// An attempt that gets longer has failed (the original's limit is 102,400).
    pub max_characters: usize,
    /// An attempt that takes longer has failed (the original's limit is 20 minutes). Counted is its share: the time of
    /// a round of the batch, divided by the pieces in it.
    pub max_seconds: f64,
    /// A piece of so many patches, the prompt's not counted, is complete.
    pub max_patches: Option<usize>,
    /// Attempts at a piece before it is given up.
    pub max_attempts: u32,
    /// (i, n): only the pieces whose number leaves the remainder i when divided by n.
    pub shard: (usize, usize),
    /// Rounds to record a Chrome trace of, and its file.
    pub profile: Option<(u64, PathBuf)>,
    /// Pieces that exist already.
    pub skip: &'a dyn Fn(usize) -> bool,
    /// Says what is wrong with a complete text; the piece is then tried again.
    pub check: &'a dyn Fn(&str) -> std::result::Result<(), String>,
}

impl Default for Options<'_> {
    /// One piece with the original's settings.
    fn default() -> Self {
        Options {
            samples: 1,
            batch_size: None,
            seed: 0,
            sampling: Sampling::default(),
            starts: Vec::new(),
            max_characters: 102_400,
            max_seconds: 20.0 * 60.0,
            max_patches: None,
            max_attempts: 10,
            shard: (0, 1),
            profile: None,
            skip: &|_| false,
            check: &|_| Ok(()),
        }
    }
}

/// A complete piece.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenPiece {
    /// Its number.
    pub index: usize,
    /// Interleaved ABC with stream tags, the prompt included.
    pub text: String,
    /// Patches written in the attempt that gave it.
    pub patches: usize,
    /// This attempt's share of the time.
    pub seconds: f64,
    /// Attempts that it took.
    pub attempts: u32,
    /// Why it is complete.
    pub outcome: Outcome,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Complete pieces.
    pub pieces: usize,
    /// Failed attempts.
    pub failed: usize,
    /// Pieces given up after the last attempt.
    pub given_up: Vec<usize>,
    /// Patches written, those of failed attempts included.
    pub patches: usize,
    /// Time in all.
    pub seconds: f64,
    /// Patches by seconds.
    pub patches_per_second: f64,
    /// Pieces at once, at the end.
    pub batch_size: usize,
    /// Stopped before all pieces were done.
    pub stopped: bool,
    /// What CUDA graphs gained; none on a CPU.
    pub recordings: Option<CudaGraphStats>,
}

/// What happens while pieces are written.
#[derive(Debug)]
pub enum GenerationEvent<'a> {
    /// The run begins.
    Started {
        /// Pieces to make.
        pieces: usize,
        /// Pieces at once.
        batch_size: usize,
    },
    /// An attempt at a piece begins with this text.
    Began {
        /// The piece.
        index: usize,
        /// From 1.
        attempt: u32,
        /// The prompt.
        text: &'a str,
    },
    /// A patch was added to a piece.
    Text {
        /// The piece.
        index: usize,
        /// What was added.
        text: &'a str,
    },
    /// A piece is complete.
    Finished(&'a WrittenPiece),
    /// An attempt has failed.
    Failed {
        /// The piece.
        index: usize,
        /// From 1.
        attempt: u32,
        /// Why.
        reason: &'a Failure,
        /// What it had written.
        text: &'a str,
        /// Another attempt follows.
        retried: bool,
    },
    /// Memory ran out, and fewer pieces are made at once from here on.
    Lowered {
        /// Pieces at once before.
        from: usize,
        /// Pieces at once from here on.
        to: usize,
    },
    /// Every piece of the batch has got a patch.
    Round {
        /// Complete pieces.
        pieces: usize,
        /// Failed attempts.
        failed: usize,
        /// Patches written.
        patches: usize,
        /// Pieces being written.
        live: usize,
        /// Time since the start.
        seconds: f64,
    },
}
