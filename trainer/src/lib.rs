//! How the network learns: data, precision, optimizer, schedule, checkpoints, telemetry and the loop over them.

mod checkpoint;
mod data;
pub mod dpo;
mod error;
mod evaluate;
pub mod language;
mod loader;
pub mod m3;
pub mod memory;
mod objective;
mod optimizer;
pub mod params;
pub mod preference;
mod ranks;
mod schedule;
mod settings;
mod shards;
mod step;
mod stream;
mod telemetry;
mod train;

pub use checkpoint::{Checkpoints, Position, Window};
pub use data::{Dataset, glob, read_index};
pub use dpo::{DpoParams, DpoReport};
pub use error::{Error, Result};
pub use language::{BatchBy, LanguageParams};
pub use loader::{in_order, shuffled, shuffled_by_length};
pub use m3::M3Params;
pub use objective::{Loss, Network, Objective, Part, Place, Set, Work};
pub use optimizer::{Exchange, Exchanged, Optimizer, StepReport};
pub use ranks::Ranks;
pub use schedule::Schedule;
pub use settings::{Dtype, KeyAugmentation, Precision, Settings};
pub use step::{Begun, Done, begin_step, finish_steps, run_step};
pub use telemetry::{Event, Observer};
pub use train::{Outcome, Report, train};
