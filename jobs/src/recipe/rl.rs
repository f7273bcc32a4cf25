//! Reinforcement learning by CLaMP-DPO: its parts, and `rl`, which is rounds of all of them.
use std::num::NonZeroU64;
use std::path::PathBuf;

use model::number::{Count, NonNegative, Portion, Positive, count};
use model::sampling::Sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trainer::params::Param;
use trainer::{DpoParams, Dtype, Precision, Settings, keys};

use super::declare::{declare, stage};
use super::resources::Resources;
use super::training::settings;

/// Threads that read pairs ahead.
const WORKERS: usize = 2;

keys! { @ declare {
    /// DPO-positive.
    #[schemars(rename = "DpoSettings")]
    DpoKeys
} {} ..dpo_keys, }

stage! {
    /// Direct preference optimisation (DPO-positive) on preference data.
    Dpo {
        /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
        #[schemars(extend("effect" = "content"))]
        init: Option<String>,
        /// The preference data: {"chosen": […], "rejected": […]}.
        preferences: PathBuf,
        /// The recipe's precision, for this stage.
        precision: Option<Precision>,
        /// The tag in the published file's name (RECIPE-STAGE).
        #[schemars(extend("effect" = "none"))]
        tag: Option<String>,
        ..dpo_keys,
    }
}

impl DpoKeys {
    /// Every key with its default.
    pub fn all_left_out() -> serde_json::Result<DpoKeys> {
        serde_json::from_str("{}")
    }

    /// The same for the schema.
    fn described() -> Option<DpoKeys> {
        DpoKeys::all_left_out().ok()
    }

    /// The stage that has these keys besides its own.
    pub fn stage(
        self,
        (name, resources): (String, Option<Resources>),
        (init, preferences): (Option<String>, PathBuf),
        (precision, tag): (Option<Precision>, String),
    ) -> Dpo {
        macro_rules! of_these {
            ({ $keys:ident } $($(#[$($meta:tt)*])* $key:ident: $type:ty,)*) => {
                Dpo { name: Some(name), resources, init, preferences, precision, tag: Some(tag), $($key: $keys.$key,)* }
            };
        }
        keys! { @ of_these { self } {} ..dpo_keys, }
    }
}

impl Dpo {
    /// The settings of the loop.
    pub fn settings(&self, seed: u64) -> Settings {
        keys! { @ settings { self,
            seed,
            precision: self.precision.value(),
            learning_rate: self.learning_rate.get(),
            batch_size: self.batch_size.get(),
            accumulation_steps: self.accumulation_steps.get(),
            steps: Some(self.steps.get()),
            max_grad_norm: self.max_grad_norm.value(),
            weight_decay: self.weight_decay.get(),
            workers: WORKERS,
        } {} ..step_keys, }
    }

    /// What the network learns from, and how.
    pub fn preference(&self) -> DpoParams {
        DpoParams {
            preferences: self.preferences.clone(),
            beta: self.beta.get(),
            lambda: self.lambda.get(),
            dropout: self.dropout,
        }
    }
}

stage! {
    /// Rounds of CLaMP-DPO: generate, features, score, prefer, DPO; each part is a stage of its own, NAME.ROUND.PART.
    Rl {
        /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
        init: Option<String>,
        /// Rounds.
        #[serde(default = "count::<3>")]
        rounds: NonZeroU64,
        /// The weights of CLaMP 2 or M3: a path, hf://owner/repo/file or stage:NAME of an m3 stage.
        clamp2: String,
        /// Folder of interleaved ABC that generated pieces are scored against.
        reference: PathBuf,
        /// Only reference pieces whose name matches this glob.
        reference_pieces: Option<String>,
        /// Pieces to write each round.
        #[serde(default = "Count::of::<1000>")]
        samples: Count,
        /// Pieces written at a time (as many as the memory holds).
        batch_size: Option<Count>,
        /// How characters are drawn.
        #[serde(default)]
        sampling: Sampling,
        /// Prompts, taken in turn.
        prompts: Option<Vec<String>>,
        /// Give a piece up after this many seconds (1200).
        max_seconds: Option<Positive>,
        /// End a piece after this many patches (the model ends it).
        max_patches: Option<Count>,
        /// The portion chosen, and the portion rejected.
        #[serde(default = "Portion::ratio::<1, 10>")]
        select: Portion,
        /// A piece more like a reference piece than this is not chosen.
        #[serde(default = "Portion::ratio::<95, 100>")]
        similarity_limit: Portion,
        /// The optimisation of each round.
        #[schemars(with = "DpoKeys", default = "DpoKeys::described")]
        dpo: Option<DpoKeys>,
        /// Whether pieces of the last round's weights are written and scored too.
        #[serde(default = "yes")]
        score_last: bool,
        /// The recipe's precision, for this stage.
        precision: Option<Precision>,
        /// The tag in the published files' names, before -RL1, -RL2, … (the recipe's name).
        tag: Option<String>,
    }
}

stage! {
    /// CLaMP 2 features of a folder of interleaved ABC.
    Features {
        /// The weights of CLaMP 2 or M3: a path, hf://owner/repo/file or stage:NAME of an m3 stage.
        weights: String,
        /// Folder of interleaved ABC.
        input: PathBuf,
        /// Only pieces whose name matches this glob.
        pieces: Option<String>,
        /// Folder for the features, a .npy a piece.
        output: PathBuf,
        /// The number format of the arithmetic (fp32, whatever the recipe's precision).
        #[serde(default = "fp32")]
        precision: Precision,
    }
}

fn yes() -> bool {
    true
}

fn fp32() -> Precision {
    Precision::Fp32
}

stage! {
    /// The average CLaMP 2 score of generated pieces.
    Score {
        /// Folder of features of the reference pieces.
        reference: PathBuf,
        /// Folder of features of the generated pieces.
        generated: PathBuf,
        /// The rounds of DPO that the pieces' weights have had: the score's place in the plot.
        round: Option<u64>,
        /// Folder of TensorBoard events that the scores of all rounds go to (the stage's).
        #[schemars(extend("effect" = "none"))]
        plot: Option<PathBuf>,
    }
}

stage! {
    /// Chooses and rejects generated pieces: the preference data of DPO.
    Prefer {
        /// Folder of features of the reference pieces.
        reference: PathBuf,
        /// Folder of features of the generated pieces.
        features: PathBuf,
        /// Folder of the generated pieces, interleaved.
        interleaved: PathBuf,
        /// Folder of the generated pieces as the model wrote them.
        original: PathBuf,
        /// The portion chosen, and the portion rejected.
        #[serde(default = "Portion::ratio::<1, 10>")]
        select: Portion,
        /// A piece more like a reference piece than this is not chosen.
        #[serde(default = "Portion::ratio::<95, 100>")]
        similarity_limit: Portion,
        /// The file to write: {"chosen": […], "rejected": […]}.
        output: PathBuf,
    }
}
