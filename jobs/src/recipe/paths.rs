//! Where runs and what preprocessing writes are.
use std::path::{Path, PathBuf};

use crate::common::failure::{Failure, Result};

/// The folder of the run of this name.
pub fn run_folder(name: &str) -> PathBuf {
    Path::new("runs").join(name)
}

/// The folder of a run, given that or the run's name.
///
/// # Errors
/// There is no such run; the hint lists those that there are.
pub fn find_run(run: &Path) -> Result<PathBuf> {
    let named = run_folder(&run.to_string_lossy());
    for folder in [run, &named] {
        if ["state.json", "slurm/jobs.json"].iter().any(|file| folder.join(file).is_file()) {
            return Ok(folder.to_owned());
        }
    }
    let runs: Vec<String> = std::fs::read_dir("runs")
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let hint = if runs.is_empty() { "there are no runs yet".to_owned() } else { format!("runs: {}", runs.join(", ")) };
    Err(Failure::usage(format!("{}: no such run", run.display())).hint(hint))
}

/// The indexes beside a folder of augmented pieces: all, for training, for evaluation.
pub fn indexes(augmented: &Path) -> [PathBuf; 3] {
    ["", "_train", "_eval"].map(|part| {
        let mut name = augmented.as_os_str().to_owned();
        name.push(format!("{part}.jsonl"));
        PathBuf::from(name)
    })
}
