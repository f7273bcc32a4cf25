//! The stages of a recipe, one file each.
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

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use tch::Device;

pub use training::precision;

use crate::{
    failure::{Failure, Result},
    plan::{Plan, Planned},
    progress::Reporter,
    recipe::Stage,
    resolve::Init,
    state::{Outputs, State},
    team::Team,
};

/// What a stage is given besides its settings.
pub struct Context<'a> {
    pub plan: &'a Plan,
    pub state: &'a State,
    /// The stage's folder.
    pub folder: &'a Path,
    pub device: Device,
    /// (i, n): of a stage that works piece by piece, only the pieces of share i.
    pub shard: (usize, usize),
    /// Raised when the stage shall save and leave.
    pub stop: &'a Arc<AtomicBool>,
    pub reporter: &'a mut Reporter,
    /// The processes that train together.
    pub team: &'a mut Team,
}

/// How a stage ended.
pub enum Ended {
    Done(Outputs),
    /// The stop flag was raised; all is saved.
    Interrupted,
}

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

impl Context<'_> {
    /// The file of the weights that a stage starts from.
    ///
    /// # Errors
    /// The stage that makes them is not done.
    fn weights(&self, init: &Init) -> Result<PathBuf> {
        match init {
            Init::Stage(name) => {
                let record = self.state.stages.get(name);
                record.and_then(|record| record.result.weights.clone()).ok_or_else(|| {
                    Failure::failed(format!("stage {name} has left no weights"))
                        .hint(format!("run it again: --only {name} --fresh"))
                })
            }
            other => other.path().ok_or_else(|| Failure::failed("no weights are named")),
        }
    }
}
