//! Reinforcement learning by CLaMP-DPO: its parts, and `rl`, which is rounds of all of them.
use std::{num::NonZeroU64, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    number::*,
    precision::{Dtype, Precision},
    resources::Resources,
    values::Sampling,
};

/// Declares a map with the keys of an optimisation by preferences behind its own.
macro_rules! preference {
    ($(#[$about:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// Weight of the log-ratio.
            #[serde(default = "beta")]
            pub beta: Positive,
            /// Weight of the penalty on chosen pieces that become less likely.
            #[serde(default = "lambda")]
            pub lambda: NonNegative,
            /// The learning rate.
            #[serde(default = "dpo_learning_rate")]
            pub learning_rate: Positive,
            /// Optimizer steps.
            #[serde(default = "ten_thousand")]
            pub steps: NonZeroU64,
            /// Pairs per rank and step.
            #[serde(default = "one")]
            pub batch_size: NonZeroU64,
            /// Parts that the pairs of a step are run in, one after the other; divides batch_size.
            #[serde(default = "one")]
            pub accumulation_steps: NonZeroU64,
            /// Clip the norm of the gradient to this; null is no clipping.
            #[serde(default = "dpo_max_grad_norm")]
            pub max_grad_norm: Option<Positive>,
            /// AdamW's decoupled weight decay.
            #[serde(default = "weight_decay")]
            pub weight_decay: NonNegative,
            /// Whether the network drops out while it learns. The reference never does, so that what drops out looks like
            /// a loss of log-probability to lambda.
            #[serde(default)]
            pub dropout: bool,
            /// Recompute activations in the backward pass: less memory, a third more time.
            #[serde(default)]
            pub activation_checkpointing: bool,
            /// The number format in which gradients travel between processes: fp16 and bf16 halve their bytes.
            #[serde(default)]
            pub gradient_precision: Dtype,
            /// Each process keeps its share of the optimizer's state alone (ZeRO-1): less memory, the same result.
            #[serde(default)]
            pub shard_optimizer: bool,
            /// Keep AdamW's moments in the CPU's memory, and step there: 8 bytes a parameter less of a GPU's, slower.
            #[serde(default)]
            pub optimizer_offload: bool,
            /// Steps between checkpoints.
            #[serde(default = "checkpoint_every")]
            pub checkpoint_every: NonZeroU64,
            /// Checkpoints kept.
            #[serde(default = "two")]
            pub keep_checkpoints: NonZeroU64,
            /// Steps between lines of metrics.jsonl.
            #[serde(default = "ten")]
            pub log_every: NonZeroU64,
        }
    };
}

preference! {
    /// DPO-positive.
    DpoSettings {}
}

preference! {
    /// Direct preference optimisation (DPO-positive) on preference data.
    Dpo {
        /// The name of the stage (its kind).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// What the stage asks of a cluster, before the recipe's `resources`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub resources: Option<Resources>,
        /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub init: Option<String>,
        /// The preference data: {"chosen": […], "rejected": […]}.
        pub preferences: PathBuf,
        /// The recipe's precision, for this stage.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub precision: Option<Precision>,
        /// The tag in the published file's name (RECIPE-STAGE).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tag: Option<String>,
    }
}

impl Default for DpoSettings {
    fn default() -> DpoSettings {
        DpoSettings {
            beta: beta(),
            lambda: lambda(),
            learning_rate: dpo_learning_rate(),
            steps: ten_thousand(),
            batch_size: one(),
            accumulation_steps: one(),
            max_grad_norm: dpo_max_grad_norm(),
            weight_decay: weight_decay(),
            dropout: false,
            activation_checkpointing: false,
            gradient_precision: Dtype::default(),
            shard_optimizer: false,
            optimizer_offload: false,
            checkpoint_every: checkpoint_every(),
            keep_checkpoints: two(),
            log_every: ten(),
        }
    }
}

/// Rounds of CLaMP-DPO: generate, features, score, prefer, DPO; each part is a stage of its own, NAME.ROUND.PART.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rl {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the stage asks of a cluster, before the recipe's `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Rounds.
    #[serde(default = "three")]
    pub rounds: NonZeroU64,
    /// The weights of CLaMP 2 or M3: a path, hf://owner/repo/file or stage:NAME of an m3 stage.
    pub clamp2: String,
    /// Folder of interleaved ABC that generated pieces are scored against.
    pub reference: PathBuf,
    /// Only reference pieces whose name matches this glob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_pieces: Option<String>,
    /// Pieces to write each round.
    #[serde(default = "thousand")]
    pub samples: NonZeroU64,
    /// Pieces written at a time (as many as the memory holds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<NonZeroU64>,
    /// How characters are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Prompts, taken in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// Give a piece up after this many seconds (1200).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<Positive>,
    /// End a piece after this many patches (the model ends it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_patches: Option<NonZeroU64>,
    /// The portion chosen, and the portion rejected.
    #[serde(default = "tenth")]
    pub select: Portion,
    /// A piece more like a reference piece than this is not chosen.
    #[serde(default = "similarity_limit")]
    pub similarity_limit: Portion,
    /// The optimisation of each round.
    #[serde(default)]
    pub dpo: DpoSettings,
    /// Whether pieces of the last round's weights are written and scored too.
    #[serde(default = "yes")]
    pub score_last: bool,
    /// The recipe's precision, for this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The tag in the published files' names, before -RL1, -RL2, … (the recipe's name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// CLaMP 2 features of a folder of interleaved ABC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the stage asks of a cluster, before the recipe's `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The weights of CLaMP 2 or M3: a path, hf://owner/repo/file or stage:NAME of an m3 stage.
    pub weights: String,
    /// Folder of interleaved ABC.
    pub input: PathBuf,
    /// Only pieces whose name matches this glob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pieces: Option<String>,
    /// Folder for the features, a .npy a piece.
    pub output: PathBuf,
    /// The number format of the arithmetic (fp32, whatever the recipe's precision).
    #[serde(default = "fp32")]
    pub precision: Precision,
}

fn fp32() -> Precision {
    Precision::Fp32
}

/// The average CLaMP 2 score of generated pieces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the stage asks of a cluster, before the recipe's `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Folder of features of the reference pieces.
    pub reference: PathBuf,
    /// Folder of features of the generated pieces.
    pub generated: PathBuf,
    /// The rounds of DPO that the pieces' weights have had: the score's place in the plot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    /// Folder of TensorBoard events that the scores of all rounds go to (the stage's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plot: Option<PathBuf>,
}

/// Chooses and rejects generated pieces: the preference data of DPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefer {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the stage asks of a cluster, before the recipe's `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Folder of features of the reference pieces.
    pub reference: PathBuf,
    /// Folder of features of the generated pieces.
    pub features: PathBuf,
    /// Folder of the generated pieces, interleaved.
    pub interleaved: PathBuf,
    /// Folder of the generated pieces as the model wrote them.
    pub original: PathBuf,
    /// The portion chosen, and the portion rejected.
    #[serde(default = "tenth")]
    pub select: Portion,
    /// A piece more like a reference piece than this is not chosen.
    #[serde(default = "similarity_limit")]
    pub similarity_limit: Portion,
    /// The file to write: {"chosen": […], "rejected": […]}.
    pub output: PathBuf,
}
