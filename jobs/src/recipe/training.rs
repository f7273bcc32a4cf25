//! Training stages: NotaGen's three, and M3's.
use std::num::NonZeroU64;
use std::path::PathBuf;

use model::number::{Count, NonNegative, Portion, Positive, count, whole};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trainer::params::Param;
use trainer::{BatchBy, Dtype, KeyAugmentation, LanguageParams, Precision, Schedule, Settings, keys};

use super::declare::{declare, stage};
use super::resources::Resources;
use super::select::Listen;

stage! {
    /// A training stage: pretrain, post_train and finetune differ in their defaults alone.
    Training {
        /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
        #[schemars(extend("effect" = "content"))]
        init: Option<String>,
        /// A .pth file to go on from with its optimizer state and epoch, the original's or our own. Not together with init.
        #[schemars(extend("effect" = "content"))]
        resume_from: Option<PathBuf>,
        /// The index of the training pieces: {"path": …, "key": …} a line.
        #[schemars(extend("effect" = "content"))]
        train: PathBuf,
        /// The index of the evaluation pieces; without one the last weights are the best.
        #[schemars(extend("effect" = "content"))]
        eval: Option<PathBuf>,
        /// Only pieces whose name matches this glob.
        pieces: Option<String>,
        /// Only evaluation pieces whose name matches this glob (that of `pieces`).
        eval_pieces: Option<String>,
        /// The keys a piece is heard in (pretrain and post_train: all; finetune: nearby).
        key_augmentation: Option<KeyAugmentation>,
        /// The learning rate after warm-up (pretrain 1e-4, post_train and finetune 1e-5).
        learning_rate: Option<Positive>,
        /// Pieces per rank and step (pretrain 4, post_train and finetune 1).
        batch_size: Option<Count>,
        /// Passes over the training pieces (pretrain and post_train 128, finetune 64). Not together with steps.
        epochs: Option<NonZeroU64>,
        /// Steps in which the learning rate rises from 0.
        #[serde(default)]
        warmup_steps: u64,
        /// Train on this many patches of a piece at a time, drawn at random; 0 is whole pieces.
        #[serde(default)]
        patch_sampling: u64,
        /// Which pieces make a step: any, or pieces of like length, so that no process waits long for another.
        #[serde(default, skip_serializing_if = "is_default")]
        batch_by: BatchBy,
        /// Write pieces during the training, to listen to.
        #[schemars(extend("effect" = "none"))]
        listen: Option<Listen>,
        /// The tag in the published file's name, the original's EXP_TAG (RECIPE-STAGE).
        #[schemars(extend("effect" = "none"))]
        tag: Option<String>,
        ..train_keys,
    }
}

stage! {
    /// Training of M3, the music encoder of CLaMP 2, by masked patches: a judge of one's own.
    M3 {
        /// Folder of interleaved ABC (or MTF) to train on.
        #[schemars(extend("effect" = "content"))]
        train: PathBuf,
        /// Folder of pieces to evaluate on (eval_split of the training pieces).
        #[schemars(extend("effect" = "content"))]
        eval: Option<PathBuf>,
        /// The portion of the training pieces that is kept for evaluation, where eval is left out.
        #[serde(default = "Portion::ratio::<1, 100>")]
        eval_split: Portion,
        /// Only pieces whose name matches this glob.
        pieces: Option<String>,
        /// The longest context, in patches of 64 characters.
        #[serde(default = "count::<512>")]
        patch_length: NonZeroU64,
        /// Layers of the encoder.
        #[serde(default = "count::<12>")]
        patch_layers: NonZeroU64,
        /// Layers of the character decoder.
        #[serde(default = "count::<3>")]
        token_layers: NonZeroU64,
        /// Width of both, a multiple of 64 (one attention head is 64 wide); the width of the features.
        #[serde(default = "count::<768>")]
        hidden_size: NonZeroU64,
        /// Dropout, everywhere BERT and GPT-2 have it.
        #[serde(default = "Portion::ratio::<1, 10>")]
        dropout: Portion,
        /// The portion of the patches that is to be told from the rest.
        #[serde(default = "Portion::ratio::<45, 100>")]
        mask_ratio: Portion,
        /// The learning rate after warm-up (1e-4).
        learning_rate: Option<Positive>,
        /// Pieces per rank and step (16).
        batch_size: Option<Count>,
        /// Passes over the training pieces (100). Not together with steps.
        epochs: Option<NonZeroU64>,
        /// Steps in which the learning rate rises from 0.
        #[serde(default = "whole::<1000>")]
        warmup_steps: u64,
        /// The tag in the published file's name, weights_m3_TAG_p_size_… (RECIPE-STAGE); "" is the original's name.
        #[schemars(extend("effect" = "none"))]
        tag: Option<String>,
        ..train_keys,
    }
}

/// The settings of the loop that a stage's keys come to: those that are given, and those of a group.
macro_rules! settings {
    ({ $stage:ident, $($given:tt)* } $($(#[$($meta:tt)*])* $key:ident: $type:ty,)*) => {
        Settings { $($given)* $($key: $stage.$key.value(),)* ..Settings::default() }
    };
}
pub(super) use settings;

/// What the training stages do alike with their keys.
macro_rules! training {
    ($name:ident) => {
        impl $name {
            /// Fills in what is left out with the original's settings.
            pub fn fill_in(&mut self, learning_rate: Positive, batch_size: Count, epochs: NonZeroU64) {
                self.learning_rate.get_or_insert(learning_rate);
                self.batch_size.get_or_insert(batch_size);
                if self.steps.is_none() {
                    self.epochs.get_or_insert(epochs);
                }
                if self.schedule == Schedule::Wsd && self.decay_steps.is_none() {
                    self.decay_fraction.get_or_insert(Portion::ratio::<1, 10>());
                }
            }

            /// Checks that the keys go together.
            pub fn check_keys(&self) -> Result<(), String> {
                check_parts(self.batch_size(), self.accumulation_steps)?;
                if self.epochs.is_some() && self.steps.is_some() {
                    return Err("both `epochs` and `steps` are given: keep one".to_owned());
                }
                if self.decay_steps.is_some() && self.decay_fraction.is_some() {
                    return Err("both `decay_steps` and `decay_fraction` are given: keep one".to_owned());
                }
                if (self.decay_steps.is_some() || self.decay_fraction.is_some()) && self.schedule != Schedule::Wsd {
                    return Err("`decay_steps` and `decay_fraction` belong to `schedule: wsd`".to_owned());
                }
                if self.min_learning_rate.get() > self.learning_rate() {
                    return Err("`min_learning_rate` is above `learning_rate`".to_owned());
                }
                Ok(())
            }

            /// The learning rate, once filled in.
            pub fn learning_rate(&self) -> f64 {
                self.learning_rate.map_or(0.0, Positive::get)
            }

            /// Pieces per rank and step, once filled in.
            pub fn batch_size(&self) -> Count {
                self.batch_size.unwrap_or(Count::of::<1>())
            }

            /// The settings of the loop, once filled in.
            pub fn settings(&self, seed: u64) -> Settings {
                keys! { @ settings { self,
                    seed,
                    learning_rate: self.learning_rate(),
                    batch_size: self.batch_size().get(),
                    epochs: self.epochs.value(),
                    warmup_steps: self.warmup_steps,
                } {} ..train_keys, }
            }
        }
    };
}

training!(Training);
training!(M3);

/// Whether a resolved recipe leaves a key out, so that runs from before there was a choice are what they were.
fn is_default<T: Default + PartialEq>(key: &T) -> bool {
    *key == T::default()
}

/// The parts of a step are of one size.
pub fn check_parts(batch_size: Count, parts: Count) -> Result<(), String> {
    if batch_size.get().is_multiple_of(parts.get()) {
        return Ok(());
    }
    Err(format!("`batch_size` {batch_size} does not divide into {parts} `accumulation_steps`"))
}

impl Training {
    /// What the network learns from, once filled in.
    pub fn language(&self) -> LanguageParams {
        LanguageParams {
            train: self.train.clone(),
            eval: self.eval.clone(),
            pieces: self.pieces.clone(),
            eval_pieces: self.eval_pieces.clone(),
            key_augmentation: self.key_augmentation.unwrap_or(KeyAugmentation::All),
            batch_by: self.batch_by,
            patch_sampling: self.patch_sampling,
        }
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
