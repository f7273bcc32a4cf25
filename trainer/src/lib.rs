//! How a network learns.
//!
//! A training is put together from
//! - an [`Objective`]: examples, how they become batches, and a loss. There are three: music ([`language`]), CLaMP-DPO
//!   ([`dpo`]) and M3's masked patches ([`m3`]);
//! - a network that is [`Trainable`];
//! - [`Settings`], which say how long and how fast it learns, and on which [`Ranks`];
//! - an [`Observer`], which is told of [`TrainEvent`]s.
//!
//! [`train()`] runs them. Loader threads read pieces ahead; the loop begins one step after the other and never waits for
//! the device; callbacks do the rest between steps: evaluations, metrics, checkpoints, early stopping. The [`TrainState`]
//! beside each checkpoint says where the training is. What is random depends on the seed and on that place alone, so that
//! a training that was stopped goes on to the same weights.

mod callbacks;
mod checkpoint;
mod clock;
mod data;
pub mod dpo;
mod error;
mod event;
mod files;
pub mod language;
mod loader;
pub mod m3;
pub mod memory;
mod metrics;
mod objective;
mod optimizer;
pub mod params;
mod precision;
pub mod preference;
mod ranks;
mod report;
mod schedule;
mod settings;
mod shards;
mod state;
mod step;
mod stream;
mod telemetry;
mod tensorboard;
mod train;
mod training;

pub use checkpoint::{Checkpoints, resume_newest, resume_original};
pub use data::{Dataset, glob, read_index};
pub use dpo::{DpoParams, DpoReport};
pub use error::{Error, ErrorKind, Result};
pub use event::{Observer, TrainEvent};
pub use language::{BatchBy, LanguageParams};
pub use loader::{StepInput, in_order, shuffled, shuffled_by_length};
pub use m3::M3Params;
pub use objective::{Loss, MicroBatch, MicroBatchId, Objective, Split, Trainable, Workload};
pub use optimizer::{BucketExchange, GradientExchange, Optimizer, StepReport};
pub use precision::{Dtype, Precision};
pub use ranks::Ranks;
pub use report::{Outcome, TrainReport};
pub use schedule::Schedule;
pub use settings::{KeyAugmentation, Settings};
pub use state::{EvalHistory, LogWindow, TrainPosition, TrainState};
pub use step::{PendingStep, StepResult, begin_step, finish_steps, run_step};
pub use train::train;
