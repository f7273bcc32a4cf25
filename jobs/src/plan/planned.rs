//! The stages of a recipe as they are planned.
use std::path::PathBuf;

use model::Architecture;

use super::fingerprint::Fingerprint;
use super::inputs::Input;
use super::status::StageStatus;
use crate::common::failure::{Failure, Result};
use crate::recipe::{Init, Native, Recipe, Stage};

/// The stages of a recipe and how they stand.
#[derive(Debug)]
pub struct Plan {
    pub recipe: Recipe,
    pub architecture: Option<Architecture>,
    /// `runs/<name>`.
    pub folder: PathBuf,
    /// What this machine, or all of several, multiplies at full speed.
    pub native: Native,
    pub stages: Vec<Planned>,
}

/// One stage.
#[derive(Debug, Clone)]
pub struct Planned {
    pub name: String,
    pub stage: Stage,
    /// Its folder in the run's.
    pub folder: String,
    pub inputs: Vec<Input>,
    /// Where its weights come from.
    pub init: Option<Init>,
    /// Earlier stages whose results it reads.
    pub reads: Vec<String>,
    /// Whether the command line asks for it.
    pub selected: bool,
    /// Where the recipe says `precision: auto`: what it came to, and why.
    pub precision: Option<String>,
    pub fingerprint: Fingerprint,
    pub status: StageStatus,
}

impl Planned {
    /// Where the music encoder's weights come from.
    pub fn judge(&self) -> Result<Option<Init>> {
        self.stage.judge().map(Init::parse).transpose().map_err(Failure::usage)
    }

    /// Whether it is to be run: it is asked for, and not done.
    pub fn is_to_run(&self) -> bool {
        self.selected && self.status != StageStatus::Done
    }
}

impl Plan {
    pub fn stage_folder(&self, stage: &Planned) -> PathBuf {
        self.folder.join(&stage.folder)
    }
}
