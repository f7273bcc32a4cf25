//! What has been done: `runs/<name>/state.json`.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::common::failure::{Failure, Result};
use crate::common::files;
use crate::plan::fingerprint::Fingerprint;

const FORMAT: u32 = 1;

/// The record of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    format: u32,
    /// By the name of the stage.
    pub stages: BTreeMap<String, Record>,
}

/// The record of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub kind: String,
    /// Its folder in the run's.
    pub folder: String,
    pub status: RecordStatus,
    pub fingerprint: Fingerprint,
    /// Seconds since 1970.
    pub started: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
    /// Seconds of work, over all its runs.
    pub seconds: f64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default)]
    pub result: Outputs,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    Running,
    Interrupted,
    Failed,
    Done,
}

/// What a stage leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Files and folders without which the stage is not done.
    pub files: Vec<PathBuf>,
    /// The weights that a later stage starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// The same weights under the original's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PathBuf>,
    /// Numbers for the table at the end.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

impl Outputs {
    /// Files, and the numbers that are the keys of an object.
    pub fn new(files: Vec<PathBuf>, facts: &impl Serialize) -> Outputs {
        let facts = match serde_json::to_value(facts) {
            Ok(Value::Object(facts)) => facts,
            _ => Map::new(),
        };
        Outputs { files, facts, ..Outputs::default() }
    }
}

impl RunState {
    /// The record of the run in `folder`, empty if there is none.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(folder: &Path) -> Result<RunState> {
        let path = folder.join("state.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(RunState { format: FORMAT, stages: BTreeMap::new() });
            }
            Err(error) => return Err(Failure::io("read", &path, error)),
        };
        let state: RunState = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::failed(format!("{} is damaged: {error}", path.display()))
                .hint("remove it, and the stages of this run start afresh")
        })?;
        if state.format != FORMAT {
            return Err(Failure::failed(format!(
                "{} is of format {}, this version reads {FORMAT}",
                path.display(),
                state.format
            )));
        }
        Ok(state)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        files::save_json(&folder.join("state.json"), self)
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
