//! The stages of a recipe, one file each.
pub mod context;
mod dpo;
pub mod features;
pub mod generate;
mod listen;
mod m3;
pub mod prefer;
pub mod preprocess;
pub mod score;
pub mod select;
mod train;
mod training;

use crate::common::failure::{Failure, Result};
use crate::plan::Planned;
use crate::recipe::Stage;
use crate::stages::context::{Context, Ended};

/// Runs one stage.
pub fn run(planned: &Planned, context: &mut Context) -> Result<Ended> {
    match &planned.stage {
        Stage::Preprocess(stage) => preprocess::run(stage, context),
        Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => {
            train::run(stage, planned, context)
        }
        Stage::Generate(stage) => generate::run(stage, planned, context),
        Stage::Features(stage) => features::run(stage, planned, context),
        Stage::Score(stage) => score::run(stage, planned, context),
        Stage::Prefer(stage) => prefer::run(stage, context),
        Stage::Dpo(stage) => dpo::run(stage, planned, context),
        Stage::M3(stage) => m3::run(stage, context),
        Stage::Select(stage) => select::run(stage, planned, context),
        Stage::Rl(_) => Err(Failure::failed("rounds are run part by part")),
    }
}
