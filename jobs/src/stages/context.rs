//! What a stage is given, and how it ends.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tch::Device;

use crate::common::failure::{Failure, Result};
use crate::common::progress::Reporter;
use crate::launch::team::Team;
use crate::plan::Plan;
use crate::plan::state::{Outputs, RunState};
use crate::recipe::Init;

/// What a stage is given besides its settings.
pub struct Context<'a> {
    pub plan: &'a Plan,
    pub state: &'a RunState,
    /// The stage's folder.
    pub folder: &'a Path,
    pub device: Device,
    /// (i, n): of a stage that works piece by piece, only the pieces of share i.
    pub shard: (usize, usize),
    /// Raised when the stage shall save and leave.
    pub stop: &'a Arc<AtomicBool>,
    /// Steps or rounds to record a Chrome trace of.
    pub profile: Option<u64>,
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

impl Context<'_> {
    /// The file of the weights that a stage starts from.
    ///
    /// # Errors
    /// The stage that makes them is not done.
    pub fn weights(&self, init: &Init) -> Result<PathBuf> {
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
