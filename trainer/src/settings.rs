//! What a training is told, resolved and checked.
use crate::keys;
use crate::params::Param;
use crate::precision::{Dtype, Precision};
use crate::ranks::Ranks;
use crate::schedule::{self, Schedule};
use crate::{Error, Result};
use model::number::{Count, NonNegative, Portion, Positive};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::path::PathBuf;

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

macro_rules! settings {
    ({} $($(#[doc = $doc:literal])* $(#[serde $serde:tt])* $(#[schemars $schemars:tt])* $key:ident: $type:ty,)*) => {
        /// What the training loop needs to know, whatever the network learns. By default nothing is trained.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Settings {
            /// Seeds everything random.
            pub seed: u64,
            /// The learning rate after warm-up.
            pub learning_rate: f64,
            /// Examples of one rank in one optimizer step.
            pub batch_size: usize,
            /// Passes over the examples, where `steps` does not say how long.
            pub epochs: Option<u64>,
            /// Steps in which the learning rate rises from 0.
            pub warmup_steps: u64,
            $($(#[doc = $doc])* pub $key: <$type as Param>::Value,)*
            /// A file of the original's to go on from, with its optimizer state and epoch.
            pub resume_from: Option<PathBuf>,
            /// Steps to record a Chrome trace of, `profile.json` in the training's folder, by rank 0.
            pub profile: Option<u64>,
            /// Floating-point operations a second that this rank's device does at most, to say what share is used.
            pub peak: Option<f64>,
            /// The processes that the training is spread over.
            pub ranks: Ranks,
        }
    };
}

keys! { @ settings {} {} ..train_keys, }

impl Settings {
    /// Examples of one optimizer step, those of all ranks.
    pub fn step_size(&self) -> usize {
        self.batch_size * self.ranks.size()
    }

    /// Examples that go through the network together.
    pub fn part_size(&self) -> usize {
        self.batch_size.div_ceil(self.accumulation_steps)
    }

    /// The factor of the learning rate at an optimizer step of so many, counted from 0, skipped steps not counted.
    pub fn factor(&self, total_steps: u64, step: u64) -> f64 {
        let decay_steps = self.decay_steps.unwrap_or_else(|| {
            (self.decay_fraction.unwrap_or(schedule::DECAY_FRACTION) * total_steps as f64).round() as u64
        });
        let floor = self.min_learning_rate / self.learning_rate;
        schedule::factor(self.schedule, self.warmup_steps, (decay_steps, floor), total_steps, step)
    }

    /// Refuses what cannot work, before anything is read.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Config(message));
        let (batch, parts) = (self.batch_size, self.accumulation_steps);
        if batch == 0 || parts == 0 || !batch.is_multiple_of(parts) {
            return wrong(format!("batch_size {batch} does not divide into accumulation_steps {parts}"));
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return wrong(format!("learning_rate {} is not above 0", self.learning_rate));
        }
        if self.max_grad_norm.is_some_and(|norm| !(norm.is_finite() && norm > 0.0)) {
            return wrong("max_grad_norm is not above 0".to_owned());
        }
        if !matches!((self.steps, self.epochs), (Some(1..), _) | (None, Some(1..))) {
            return wrong("nothing to train: epochs or steps is 0".to_owned());
        }
        if self.checkpoint_every == 0 || self.evaluate_every == Some(0) || self.log_every == 0 {
            return wrong("checkpoint_every, evaluate_every and log_every are counted from 1".to_owned());
        }
        Ok(())
    }
}
