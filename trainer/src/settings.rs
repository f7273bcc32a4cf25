//! What a training stage is told, resolved and checked.
use crate::ranks::Ranks;
use crate::schedule::{self, Schedule};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::Kind;

/// The type that matrix products run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    Fp32,
    /// bfloat16 autocast.
    Bf16,
    /// float16 autocast with dynamic loss scaling.
    Fp16,
}

impl Precision {
    /// The autocast type; `Float` is none.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }
}

/// Which key a piece is trained in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAugmentation {
    /// Any of the 15 keys (the original's pre-training).
    All,
    /// Keys up to three semitones away, nearer ones more often (the original's fine-tuning).
    Nearby,
    /// The piece's own key (NotaGen-X).
    None,
}

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Passes over the pieces.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
}

/// What the training loop needs to know, whatever the network learns.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Seeds everything random.
    pub seed: u64,
    /// The autocast type.
    pub precision: Precision,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Examples of one rank in one optimizer step.
    pub batch_size: usize,
    /// Parts that a rank's examples of a step are run in, one after the other.
    pub accumulation_steps: usize,
    /// How long.
    pub length: Length,
    /// Ends after this many evaluations without a better loss.
    pub early_stopping: Option<u64>,
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm.
    pub max_grad_norm: Option<f64>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept, besides the best weights.
    pub keep_checkpoints: usize,
    /// Steps between evaluations; every epoch if not given.
    pub evaluate_every: Option<u64>,
    /// Steps between progress events.
    pub log_every: u64,
    /// Recompute activations in the backward pass: slower, with less memory.
    pub activation_checkpointing: bool,
    /// The kind of number in which gradients travel between ranks.
    pub gradient_precision: Precision,
    /// Each rank keeps the optimizer's state of its share of the parameters alone.
    pub shard_optimizer: bool,
    /// Keep the optimizer's state in the CPU's memory and step there: slower, with less memory of a GPU.
    pub optimizer_offload: bool,
    /// A file of the original's to go on from, with its optimizer state and epoch.
    pub resume_from: Option<PathBuf>,
    /// Threads that read and encode examples ahead.
    pub workers: usize,
    /// Steps to record a Chrome trace of, `profile.json` in the training's folder, by rank 0.
    pub profile: Option<u64>,
    /// Floating-point operations a second that this rank's device does at most, to say what share is used.
    pub peak: Option<f64>,
    /// The processes that the training is spread over.
    pub ranks: Ranks,
}

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
    pub(crate) fn factor(&self, total_steps: u64, step: u64) -> f64 {
        schedule::factor(self.schedule, self.warmup_steps, total_steps, step)
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
        if matches!(self.length, Length::Epochs(0) | Length::Steps(0)) {
            return wrong("nothing to train: epochs or steps is 0".to_owned());
        }
        if self.checkpoint_every == 0 || self.evaluate_every == Some(0) || self.log_every == 0 {
            return wrong("checkpoint_every, evaluate_every and log_every are counted from 1".to_owned());
        }
        Ok(())
    }
}
