//! The choice of a corpus's best pieces, and pieces written while a network learns.
use std::num::NonZeroU64;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use model::number::{Count, Portion, Positive};
use model::sampling::Sampling;
use trainer::Precision;

use super::declare::{declare, stage};
use super::resources::Resources;

stage! {
    /// Ranks a corpus and keeps the best of it: the training pieces of the next stage.
    Select {
        /// What to choose from: an index, or a folder of ABC, interleaved or standard.
        corpus: PathBuf,
        /// Only pieces whose name matches this glob.
        pieces: Option<String>,
        /// What ranks the pieces.
        #[serde(default)]
        by: By,
        /// The weights that say how likely a piece is: a path, hf://owner/repo/file or stage:NAME (by log_probability: the
        /// previous training stage's; else none).
        #[schemars(extend("effect" = "content"))]
        init: Option<String>,
        /// The weights of CLaMP 2 or M3 that say how like the reference a piece is: a path, hf://owner/repo/file or stage:NAME.
        clamp2: Option<String>,
        /// Folder of features of the reference pieces, by the same weights.
        reference: Option<PathBuf>,
        /// Pieces to keep. Not together with portion.
        count: Option<Count>,
        /// The portion of the pieces to keep.
        portion: Option<Portion>,
        /// Keep only pieces that score at least this.
        threshold: Option<f64>,
        /// A piece that has this portion of its bars in common with a better one is left out; null leaves none out.
        #[serde(default = "Portion::some::<4, 5>")]
        duplicates: Option<Portion>,
        /// The index to write.
        output: PathBuf,
        /// The recipe's precision, for this stage.
        precision: Option<Precision>,
    }
}

/// What ranks the pieces of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The mean log-probability of a character, in nats.
    #[default]
    LogProbability,
    /// The CLaMP 2 score: cosine similarity to the mean of the reference.
    Clamp2,
}

impl By {
    pub fn word(self) -> &'static str {
        match self {
            By::LogProbability => "log_probability",
            By::Clamp2 => "clamp2",
        }
    }
}

/// Pieces written during the training, for a person to listen to. They change nothing about the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Epochs from one time to the next.
    pub every: NonZeroU64,
    /// Pieces each time.
    #[serde(default = "Count::of::<4>")]
    pub samples: Count,
    /// How characters are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Prompts, taken in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// Seconds that the pieces of one time may take together; those not complete by then are left out.
    #[serde(default = "Positive::ratio::<120, 1>")]
    pub max_seconds: Positive,
    /// End a piece after this many patches (the model ends it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_patches: Option<Count>,
}
