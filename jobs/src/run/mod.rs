//! Runs a recipe: the stages that are missing, in order, each recorded before and after.
mod arguments;
mod folder;
mod prepare;
pub mod provenance;
mod runner;
mod start;
pub mod summary;

pub use arguments::{RunArgs, shard};
pub use prepare::{fetch, plan_run};
pub use start::run;
