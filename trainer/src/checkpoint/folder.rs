//! The files of a folder of checkpoints: `step_N.pth` with `step_N.json` beside it, and `best.pth`.
use crate::Result;
use crate::error::At;
use crate::files::{list, remove};
use std::path::{Path, PathBuf};

/// Makes the folder, and removes what a killed run has left half-written.
pub(super) fn open(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).at(folder)?;
    for path in list(folder, |name| name.starts_with('.') && name.ends_with(".part"))? {
        remove(&path)?;
    }
    // A state is written before its weights: a run that was killed between them left one without.
    for path in list(folder, |name| name.starts_with("step_") && name.ends_with(".json"))? {
        if !path.with_extension("pth").is_file() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Where the best weights are.
pub(crate) fn best_path(folder: &Path) -> PathBuf {
    folder.join("best.pth")
}

/// Where a step's weights and moments are.
pub(crate) fn step_path(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step_{step:09}.pth"))
}

/// Where a checkpoint's state is.
pub(super) fn state_path(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("json")
}

/// The checkpoints of steps, oldest first.
pub(super) fn step_files(folder: &Path) -> Result<Vec<PathBuf>> {
    list(folder, |name| name.starts_with("step_") && name.ends_with(".pth"))
}

/// Removes all checkpoints of steps but the newest `keep`.
pub(super) fn remove_old(folder: &Path, keep: usize) -> Result<()> {
    let steps = step_files(folder)?;
    for old in &steps[..steps.len().saturating_sub(keep)] {
        remove(old)?;
        remove(&state_path(old))?;
    }
    Ok(())
}
