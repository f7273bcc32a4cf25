//! Training stages: NotaGen's three, and M3's.
use std::{num::NonZeroU64, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    number::*,
    precision::{Dtype, Precision},
    resources::Resources,
    select::Listen,
};

/// Declares a stage that trains on pieces: its own keys, then those that all of them have.
macro_rules! training {
    ($(#[$about:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The name of the stage (its kind).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub name: Option<String>,
            /// What the stage asks of a cluster, before the recipe's `resources`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub resources: Option<Resources>,
            $($own)*
            /// Parts that the pieces of a step are run in, one after the other; divides batch_size.
            #[serde(default = "one")]
            pub accumulation_steps: NonZeroU64,
            /// Optimizer steps in all. Not together with epochs.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub steps: Option<NonZeroU64>,
            /// Stop after this many evaluations without a better loss (never).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub early_stopping: Option<NonZeroU64>,
            /// The course of the learning rate after warm-up.
            #[serde(default)]
            pub schedule: Schedule,
            /// The last steps, in which a wsd schedule falls. Not together with decay_fraction.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub decay_steps: Option<NonZeroU64>,
            /// The same as a portion of all steps (0.1).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub decay_fraction: Option<Portion>,
            /// The learning rate that cosine and wsd fall to.
            #[serde(default)]
            pub min_learning_rate: NonNegative,
            /// AdamW's decoupled weight decay.
            #[serde(default = "weight_decay")]
            pub weight_decay: NonNegative,
            /// Clip the norm of the gradient to this (no clipping).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_grad_norm: Option<Positive>,
            /// Steps between evaluations (one epoch).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub evaluate_every: Option<NonZeroU64>,
            /// The recipe's precision, for this stage.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub precision: Option<Precision>,
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
            /// Threads that read and encode pieces ahead of the training.
            #[serde(default = "two")]
            pub workers: NonZeroU64,
        }

        impl $name {
            /// Fills in what is left out with the original's settings, and checks that the keys go together.
            pub fn resolve_course(&mut self, learning_rate: f64, batch_size: u64, epochs: u64) -> Result<(), String> {
                let learning_rate = *self.learning_rate.get_or_insert(Positive::try_from(learning_rate)?);
                let batch_size = *self.batch_size.get_or_insert(count(batch_size));
                check_parts(batch_size, self.accumulation_steps)?;
                match (self.epochs, self.steps) {
                    (Some(_), Some(_)) => return Err("both `epochs` and `steps` are given: keep one".to_owned()),
                    (None, None) => self.epochs = Some(count(epochs)),
                    _ => {}
                }
                match (self.decay_steps, self.decay_fraction) {
                    (Some(_), Some(_)) => {
                        return Err("both `decay_steps` and `decay_fraction` are given: keep one".to_owned());
                    }
                    (Some(_), _) | (_, Some(_)) if self.schedule != Schedule::Wsd => {
                        return Err("`decay_steps` and `decay_fraction` belong to `schedule: wsd`".to_owned());
                    }
                    (None, None) if self.schedule == Schedule::Wsd => {
                        self.decay_fraction = Some(Portion::try_from(0.1)?);
                    }
                    _ => {}
                }
                if self.min_learning_rate.get() > learning_rate.get() {
                    return Err("`min_learning_rate` is above `learning_rate`".to_owned());
                }
                Ok(())
            }

            /// How it trains, once resolved.
            pub fn course(&self) -> Course {
                Course {
                    learning_rate: self.learning_rate.map_or(0.0, Positive::get),
                    batch_size: self.batch_size.map_or(1, u64::from),
                    accumulation_steps: self.accumulation_steps.get(),
                    epochs: self.epochs.map(u64::from),
                    steps: self.steps.map(u64::from),
                    early_stopping: self.early_stopping.map(u64::from),
                    schedule: self.schedule,
                    warmup_steps: self.warmup_steps,
                    decay_steps: self.decay_steps.map(u64::from),
                    decay_fraction: self.decay_fraction.map(Portion::get),
                    min_learning_rate: self.min_learning_rate.get(),
                    weight_decay: self.weight_decay.get(),
                    max_grad_norm: self.max_grad_norm.map(Positive::get),
                    evaluate_every: self.evaluate_every.map(u64::from),
                    precision: self.precision.unwrap_or_default().dtype(),
                    activation_checkpointing: self.activation_checkpointing,
                    gradient_precision: self.gradient_precision,
                    shard_optimizer: self.shard_optimizer,
                    optimizer_offload: self.optimizer_offload,
                    checkpoint_every: self.checkpoint_every.get(),
                    keep_checkpoints: self.keep_checkpoints.get(),
                    log_every: self.log_every.get(),
                    workers: self.workers.get(),
                }
            }
        }
    };
}

/// The parts of a step are of one size.
pub fn check_parts(batch_size: NonZeroU64, parts: NonZeroU64) -> Result<(), String> {
    if batch_size.get() % parts == 0 {
        return Ok(());
    }
    Err(format!("`batch_size` {batch_size} does not divide into {parts} `accumulation_steps`"))
}

/// How a stage trains, whatever it trains.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    pub learning_rate: f64,
    pub batch_size: u64,
    pub accumulation_steps: u64,
    pub epochs: Option<u64>,
    pub steps: Option<u64>,
    pub early_stopping: Option<u64>,
    pub schedule: Schedule,
    pub warmup_steps: u64,
    pub decay_steps: Option<u64>,
    pub decay_fraction: Option<f64>,
    pub min_learning_rate: f64,
    pub weight_decay: f64,
    pub max_grad_norm: Option<f64>,
    pub evaluate_every: Option<u64>,
    pub precision: Dtype,
    pub activation_checkpointing: bool,
    pub gradient_precision: Dtype,
    pub shard_optimizer: bool,
    pub optimizer_offload: bool,
    pub checkpoint_every: u64,
    pub keep_checkpoints: u64,
    pub log_every: u64,
    pub workers: u64,
}

training! {
    /// A training stage: pretrain, post_train and finetune differ in their defaults alone.
    Training {
        /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub init: Option<String>,
        /// A .pth file to go on from with its optimizer state and epoch, the original's or our own. Not together with init.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub resume_from: Option<PathBuf>,
        /// The index of the training pieces: {"path": …, "key": …} a line.
        pub train: PathBuf,
        /// The index of the evaluation pieces; without one the last weights are the best.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub eval: Option<PathBuf>,
        /// Only pieces whose name matches this glob.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pieces: Option<String>,
        /// Only evaluation pieces whose name matches this glob (that of `pieces`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub eval_pieces: Option<String>,
        /// The keys a piece is heard in (pretrain and post_train: all; finetune: nearby).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key_augmentation: Option<KeyAugmentation>,
        /// The learning rate after warm-up (pretrain 1e-4, post_train and finetune 1e-5).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub learning_rate: Option<Positive>,
        /// Pieces per rank and step (pretrain 4, post_train and finetune 1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub batch_size: Option<NonZeroU64>,
        /// Passes over the training pieces (pretrain and post_train 128, finetune 64). Not together with steps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub epochs: Option<NonZeroU64>,
        /// Steps in which the learning rate rises from 0.
        #[serde(default)]
        pub warmup_steps: u64,
        /// Train on this many patches of a piece at a time, drawn at random; 0 is whole pieces.
        #[serde(default)]
        pub patch_sampling: u64,
        /// Which pieces make a step: any, or pieces of like length, so that no process waits long for another.
        #[serde(default, skip_serializing_if = "BatchBy::is_random")]
        pub batch_by: BatchBy,
        /// Write pieces during the training, to listen to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub listen: Option<Listen>,
        /// The tag in the published file's name, the original's EXP_TAG (RECIPE-STAGE).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tag: Option<String>,
    }
}

training! {
    /// Training of M3, the music encoder of CLaMP 2, by masked patches: a judge of one's own.
    M3 {
        /// Folder of interleaved ABC (or MTF) to train on.
        pub train: PathBuf,
        /// Folder of pieces to evaluate on (eval_split of the training pieces).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub eval: Option<PathBuf>,
        /// The portion of the training pieces that is kept for evaluation, where eval is left out.
        #[serde(default = "hundredth")]
        pub eval_split: Portion,
        /// Only pieces whose name matches this glob.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pieces: Option<String>,
        /// The longest context, in patches of 64 characters.
        #[serde(default = "m3_patch_length")]
        pub patch_length: NonZeroU64,
        /// Layers of the encoder.
        #[serde(default = "twelve")]
        pub patch_layers: NonZeroU64,
        /// Layers of the character decoder.
        #[serde(default = "three")]
        pub token_layers: NonZeroU64,
        /// Width of both, a multiple of 64 (one attention head is 64 wide); the width of the features.
        #[serde(default = "m3_hidden_size")]
        pub hidden_size: NonZeroU64,
        /// Dropout, everywhere BERT and GPT-2 have it.
        #[serde(default = "tenth")]
        pub dropout: Portion,
        /// The portion of the patches that is to be told from the rest.
        #[serde(default = "mask_ratio")]
        pub mask_ratio: Portion,
        /// The learning rate after warm-up (1e-4).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub learning_rate: Option<Positive>,
        /// Pieces per rank and step (16).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub batch_size: Option<NonZeroU64>,
        /// Passes over the training pieces (100). Not together with steps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub epochs: Option<NonZeroU64>,
        /// Steps in which the learning rate rises from 0.
        #[serde(default = "thousand_steps")]
        pub warmup_steps: u64,
        /// The tag in the published file's name, weights_m3_TAG_p_size_… (RECIPE-STAGE); "" is the original's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tag: Option<String>,
    }
}

impl M3 {
    /// The network that it trains.
    pub fn architecture(&self) -> model::m3::M3Architecture {
        let size = |number: NonZeroU64| i64::try_from(number.get()).unwrap_or(i64::MAX);
        model::m3::M3Architecture {
            patch_length: size(self.patch_length),
            patch_layers: size(self.patch_layers),
            token_layers: size(self.token_layers),
            hidden_size: size(self.hidden_size),
            dropout: self.dropout.get(),
            ..Default::default()
        }
    }
}

/// Which pieces make a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchBy {
    /// Any, as the original draws them.
    #[default]
    Random,
    /// Pieces of like length.
    Length,
}

impl BatchBy {
    /// What is left out of a resolved recipe, so that runs from before there was a choice are what they were.
    fn is_random(&self) -> bool {
        *self == BatchBy::Random
    }
}

impl From<BatchBy> for trainer::BatchBy {
    fn from(by: BatchBy) -> trainer::BatchBy {
        match by {
            BatchBy::Random => trainer::BatchBy::Random,
            BatchBy::Length => trainer::BatchBy::Length,
        }
    }
}

/// The keys a piece is heard in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyAugmentation {
    /// All fifteen key signatures alike.
    All,
    /// Up to three semitones from the piece's own key, the nearer the likelier.
    Nearby,
    /// The piece's own key alone.
    None,
}

/// The course of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine down to min_learning_rate.
    Cosine,
    /// It stays, then falls in a line to min_learning_rate over the last steps.
    Wsd,
}
