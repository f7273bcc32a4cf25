//! What can be known to be wrong before anything is run: missing inputs, weights of another network.
use std::path::Path;

use super::planned::{Plan, Planned};
use super::state::RunState;
use super::status::StageStatus;
use crate::common::failure::{Failure, Result};
use crate::common::loading;
use crate::hub::reference::Reference;
use crate::hub::released;
use crate::recipe::Init;

impl Plan {
    /// Checks the weights that are there against the recipe's network, and that none of the originals' files would
    /// be overwritten.
    ///
    /// # Errors
    /// One line that names file, stage and what does not fit.
    pub fn check_weights(&self, state: &RunState) -> Result<()> {
        for planned in self.stages.iter().filter(|planned| planned.is_to_run()) {
            if let (Some(training), Some(architecture)) = (planned.stage.training(), &self.architecture) {
                let init = planned.init.as_ref().and_then(Init::path);
                for path in init.iter().chain(&training.resume_from).filter(|path| path.is_file()) {
                    loading::check(path, architecture).map_err(|failure| failure.in_stage(&planned.name))?;
                }
            }
            if let Some(path) = planned.judge()?.and_then(|judge| judge.path()).filter(|path| path.is_file()) {
                loading::check_encoder(&path).map_err(|failure| failure.in_stage(&planned.name))?;
            }
            if let Some(to) = planned
                .stage
                .published(self.architecture.as_ref())
                .filter(|to| released::is_released(to) && to.exists())
            {
                let ours = state.stages.get(&planned.name).and_then(|record| record.result.published.as_ref());
                if ours != Some(&to) {
                    return Err(Failure::usage(format!(
                        "stage {} would overwrite {}, a file of the originals",
                        planned.name,
                        to.display()
                    ))
                    .hint(format!("give it another tag: --set {}.tag=mine", planned.name)));
                }
            }
        }
        Ok(())
    }

    /// The files of the hub that the stages to run need and that are not here.
    pub fn to_fetch(&self) -> Vec<(&Planned, &Reference)> {
        let stages = self.stages.iter().filter(|stage| stage.is_to_run());
        let inputs = stages.flat_map(|stage| stage.inputs.iter().map(move |input| (stage, input)));
        let missing = inputs.filter(|(_, input)| !input.present);
        missing.filter_map(|(stage, input)| Some((stage, input.hub.as_ref()?))).collect()
    }

    /// The inputs that are neither there nor made by a stage that will have run, nor fetched from the hub.
    ///
    /// # Errors
    /// One failure that names all of them, and says where to get them and where to put them.
    pub fn check_inputs(&self) -> Result<()> {
        let mut missing: Vec<String> = Vec::new();
        let mut named: Vec<&Path> = Vec::new();
        let mut origins: Vec<String> = Vec::new();
        let mut will_be_made: Vec<&str> = Vec::new();
        for stage in &self.stages {
            if stage.is_to_run() {
                for input in &stage.inputs {
                    let made = input.made_by.as_ref().is_some_and(|maker| will_be_made.contains(&maker.as_str()));
                    if !input.present && !made && input.hub.is_none() && !named.contains(&input.path.as_path()) {
                        named.push(&input.path);
                        missing.push(format!("{} ({} of stage {})", input.path.display(), input.key, stage.name));
                        let origin = input.origin.clone().unwrap_or_else(|| match input.key {
                            "scores" => format!("put MusicXML or standard ABC in {}", input.path.display()),
                            _ => "put what is missing there, or name other paths in the recipe".to_owned(),
                        });
                        if !origins.contains(&origin) {
                            origins.push(origin);
                        }
                    }
                }
                if let Some(Init::Stage(earlier)) = &stage.init
                    && !will_be_made.contains(&earlier.as_str())
                {
                    return Err(Failure::failed(format!(
                        "stage {} starts from the weights of stage {earlier}, which is not done",
                        stage.name
                    ))
                    .hint(format!("run stage {earlier} too (--from {earlier}), or set {}.init", stage.name)));
                }
            }
            if stage.selected || stage.status == StageStatus::Done || matches!(stage.status, StageStatus::Stale(_)) {
                will_be_made.push(&stage.name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!("missing: {}", missing.join(", "))).hint(origins.join("; ")))
    }
}
