//! The keys that several stages have in common, each declared once: its name, its type with its range, its default, what
//! it means, and whether the result depends on it. Recipes have them among keys of their own, under the same names, and
//! [`Settings`](crate::Settings) holds what they come to.
//!
//! A stage's fingerprint has all keys but those that say `#[schemars(extend("effect" = "none"))]`: where a stage writes, how
//! often, how fast.
use crate::precision::{Dtype, Precision};
use crate::schedule::Schedule;
use model::number::{Count, NonNegative, Portion, Positive};
use std::num::NonZeroU64;

/// A key as it is written, which comes to what the training computes with.
pub trait Param {
    /// What it comes to.
    type Value;

    /// The value of the key.
    fn value(&self) -> Self::Value;
}

macro_rules! params {
    ($($type:ty => $value:ty, $key:ident => $get:expr;)+) => { $(
        impl Param for $type {
            type Value = $value;

            fn value(&self) -> $value {
                let $key = *self;
                $get
            }
        }

        impl Param for Option<$type> {
            type Value = Option<$value>;

            fn value(&self) -> Option<$value> {
                self.map(|$key| $get)
            }
        }
    )+ };
}

params! {
    bool => bool, key => key;
    Dtype => Dtype, key => key;
    Schedule => Schedule, key => key;
    NonZeroU64 => u64, key => key.get();
    Count => usize, key => key.get();
    Positive => f64, key => key.get();
    NonNegative => f64, key => key.get();
    Portion => f64, key => key.get();
}

/// A stage without a precision of its own has had the recipe's filled in by now.
impl Param for Option<Precision> {
    type Value = Dtype;

    fn value(&self) -> Dtype {
        self.unwrap_or_default().dtype()
    }
}

/// Hands declarations of keys to a macro: `keys!(@ then head {} …)` is `then! { head … }` with each `..group,` among them
/// replaced by the keys of the group. A key that is an `Option` and says nothing else may be left out.
#[macro_export]
macro_rules! keys {
    (@ $then:ident $head:tt $done:tt ..train_keys, $($rest:tt)*) => {
        $crate::train_keys! { $then $head $done $($rest)* }
    };
    (@ $then:ident $head:tt $done:tt ..dpo_keys, $($rest:tt)*) => {
        $crate::dpo_keys! { $then $head $done $($rest)* }
    };
    (@ $then:ident $head:tt $done:tt ..step_keys, $($rest:tt)*) => {
        $crate::step_keys! { $then $head $done $($rest)* }
    };
    (@ $then:ident $head:tt { $($done:tt)* }
        $(#[doc = $doc:literal])* $(#[schemars $schemars:tt])* $key:ident: Option<$type:ty>, $($rest:tt)*
    ) => {
        $crate::keys! { @ $then $head {
            $($done)*
            $(#[doc = $doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            $(#[schemars $schemars])*
            $key: Option<$type>,
        } $($rest)* }
    };
    (@ $then:ident $head:tt { $($done:tt)* } $(#[$($meta:tt)*])* $key:ident: $type:ty, $($rest:tt)*) => {
        $crate::keys! { @ $then $head { $($done)* $(#[$($meta)*])* $key: $type, } $($rest)* }
    };
    (@ $then:ident $head:tt { $($done:tt)* }) => { $then! { $head $($done)* } };
}

/// What a stage has that trains on pieces, epoch by epoch.
#[macro_export]
macro_rules! train_keys {
    ($then:ident $head:tt $done:tt $($rest:tt)*) => { $crate::keys! { @ $then $head $done
        /// Parts that the pieces of a step are run in, one after the other; divides batch_size.
        #[serde(default = "Count::of::<1>")]
        accumulation_steps: Count,
        /// Optimizer steps in all. Not together with epochs.
        steps: Option<NonZeroU64>,
        /// Stop after this many evaluations without a better loss (never).
        early_stopping: Option<NonZeroU64>,
        /// The course of the learning rate after warm-up.
        #[serde(default)]
        schedule: Schedule,
        /// The last steps, in which a wsd schedule falls. Not together with decay_fraction.
        decay_steps: Option<NonZeroU64>,
        /// The same as a portion of all steps (0.1).
        decay_fraction: Option<Portion>,
        /// The learning rate that cosine and wsd fall to.
        #[serde(default)]
        min_learning_rate: NonNegative,
        /// AdamW's decoupled weight decay.
        #[serde(default = "NonNegative::ratio::<1, 100>")]
        weight_decay: NonNegative,
        /// Clip the norm of the gradient to this (no clipping).
        max_grad_norm: Option<Positive>,
        /// Steps between evaluations (one epoch).
        evaluate_every: Option<NonZeroU64>,
        /// The recipe's precision, for this stage.
        precision: Option<Precision>,
        ..step_keys,
        /// Threads that read and encode pieces ahead of the training.
        #[serde(default = "Count::of::<2>")]
        #[schemars(extend("effect" = "none"))]
        workers: Count,
        $($rest)*
    } };
}

/// What a stage has that learns from pairs.
#[macro_export]
macro_rules! dpo_keys {
    ($then:ident $head:tt $done:tt $($rest:tt)*) => { $crate::keys! { @ $then $head $done
        /// Weight of the log-ratio.
        #[serde(default = "Positive::ratio::<1, 10>")]
        beta: Positive,
        /// Weight of the penalty on chosen pieces that become less likely.
        #[serde(default = "NonNegative::ratio::<10, 1>")]
        lambda: NonNegative,
        /// The learning rate.
        #[serde(default = "Positive::ratio::<1, 1_000_000>")]
        learning_rate: Positive,
        /// Optimizer steps.
        #[serde(default = "count::<10_000>")]
        steps: NonZeroU64,
        /// Pairs per rank and step.
        #[serde(default = "Count::of::<1>")]
        batch_size: Count,
        /// Parts that the pairs of a step are run in, one after the other; divides batch_size.
        #[serde(default = "Count::of::<1>")]
        accumulation_steps: Count,
        /// Clip the norm of the gradient to this; null is no clipping.
        #[serde(default = "Positive::some::<1, 1>")]
        max_grad_norm: Option<Positive>,
        /// AdamW's decoupled weight decay.
        #[serde(default = "NonNegative::ratio::<1, 100>")]
        weight_decay: NonNegative,
        /// Whether the network drops out while it learns. The reference never does, so that what drops out looks like
        /// a loss of log-probability to lambda.
        #[serde(default)]
        dropout: bool,
        ..step_keys,
        $($rest)*
    } };
}

/// What every training has: how its steps are taken, saved and told.
#[macro_export]
macro_rules! step_keys {
    ($then:ident $head:tt $done:tt $($rest:tt)*) => { $crate::keys! { @ $then $head $done
        /// Recompute activations in the backward pass: less memory, a third more time.
        #[serde(default)]
        #[schemars(extend("effect" = "none"))]
        activation_checkpointing: bool,
        /// The number format in which gradients travel between processes: fp16 and bf16 halve their bytes.
        #[serde(default)]
        gradient_precision: Dtype,
        /// Each process keeps its share of the optimizer's state alone (ZeRO-1): less memory, the same result.
        #[serde(default)]
        #[schemars(extend("effect" = "none"))]
        shard_optimizer: bool,
        /// Keep AdamW's moments in the CPU's memory, and step there: 8 bytes a parameter less of a GPU's, slower.
        #[serde(default)]
        #[schemars(extend("effect" = "none"))]
        optimizer_offload: bool,
        /// Steps between checkpoints.
        #[serde(default = "count::<500>")]
        #[schemars(extend("effect" = "none"))]
        checkpoint_every: NonZeroU64,
        /// Checkpoints kept.
        #[serde(default = "Count::of::<2>")]
        #[schemars(extend("effect" = "none"))]
        keep_checkpoints: Count,
        /// Steps between lines of metrics.jsonl.
        #[serde(default = "count::<10>")]
        #[schemars(extend("effect" = "none"))]
        log_every: NonZeroU64,
        $($rest)*
    } };
}
