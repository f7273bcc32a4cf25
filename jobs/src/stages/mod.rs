//! The stages of a recipe, one file each.
pub mod generate;
pub mod preprocess;
mod train;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use tch::Device;

use crate::{
    failure::{Failure, Result},
    plan::{Plan, Planned},
    progress::Reporter,
    recipe::Stage,
    resolve::Init,
    state::{Outputs, State},
};

/// What a stage is given besides its settings.
pub struct Context<'a> {
    pub plan: &'a Plan,
    pub state: &'a State,
    /// The stage's folder.
    pub folder: &'a Path,
    pub device: Device,
    /// Raised when the stage shall save and leave.
    pub stop: &'a Arc<AtomicBool>,
    pub reporter: &'a mut Reporter,
}

/// How a stage ended.
pub enum Ended {
    Done(Outputs),
    /// The stop flag was raised; all is saved.
    Interrupted,
}

/// Whether this version can run the stage.
pub fn available(stage: &Stage) -> bool {
    matches!(
        stage,
        Stage::Preprocess(_) | Stage::Pretrain(_) | Stage::PostTrain(_) | Stage::Finetune(_) | Stage::Generate(_)
    )
}

/// Runs one stage.
pub fn run(planned: &Planned, context: &mut Context) -> Result<Ended> {
    match &planned.stage {
        Stage::Preprocess(stage) => preprocess::run(stage, context),
        Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => {
            train::run(stage, planned, context)
        }
        Stage::Generate(stage) => generate::run(stage, planned, context),
        Stage::Rl(_) | Stage::Features(_) | Stage::Score(_) | Stage::Prefer(_) | Stage::Dpo(_) => {
            Err(unavailable(planned))
        }
    }
}

/// The failure of a run that comes to a stage that this version does not have.
pub fn unavailable(planned: &Planned) -> Failure {
    Failure::failed(format!(
        "stage {} ({}) is not available in this version of notagen-train; the stages before it are done",
        planned.name,
        planned.stage.kind()
    ))
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
