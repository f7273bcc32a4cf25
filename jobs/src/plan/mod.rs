//! What a run would do: the stages resolved, what each depends on, and how each stands.
mod checks;
pub mod cost;
pub mod estimate;
pub mod fingerprint;
mod inputs;
mod make;
mod planned;
mod precision;
pub mod products;
pub mod scaling;
mod selection;
pub mod state;
mod status;

pub use planned::{Plan, Planned};
pub use selection::Selection;
pub use status::StageStatus;
