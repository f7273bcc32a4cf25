//! How the network learns: data, precision, optimizer, schedule, checkpoints, telemetry and the loop over them.

mod checkpoint;
mod data;
mod error;
mod evaluate;
mod loader;
mod optimizer;
mod schedule;
mod settings;
mod stream;
mod telemetry;
mod train;

pub use checkpoint::{Checkpoints, Position};
pub use data::{Dataset, read_index};
pub use error::{Error, Result};
pub use optimizer::{Optimizer, StepReport};
pub use schedule::factor as schedule_factor;
pub use settings::{KeyAugmentation, Length, Precision, Schedule, Settings};
pub use telemetry::{Event, Observer};
pub use train::{Outcome, Report, run_step, train};
