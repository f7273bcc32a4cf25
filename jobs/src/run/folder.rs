//! The run's folder: its recipe, what `--fresh` removes from it, folders of stages that are put aside.
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::failure::{Failure, Result};
use crate::common::files;
use crate::common::progress::Reporter;
use crate::plan::Plan;
use crate::plan::state::RunState;

/// The resolved recipe, beside what comes of it.
pub fn write_recipe(plan: &Plan) -> Result<()> {
    let path = plan.folder.join("recipe.yaml");
    let text = serde_saphyr::to_string(&plan.settled_recipe()).map_err(|error| Failure::io("write", &path, error))?;
    files::save(&path, text)
}

/// `--fresh`: the selected stages count as never run.
pub fn forget(plan: &Plan, state: &mut RunState, reporter: &mut Reporter) -> Result<()> {
    for planned in plan.stages.iter().filter(|planned| planned.selected) {
        let folder = plan.stage_folder(planned);
        let known = state.stages.remove(&planned.name).is_some();
        if folder.exists() {
            reporter.say(format!("{}: --fresh removes {}", planned.name, folder.display()));
            state.write(&plan.folder)?;
            files::remove_folder(&folder)?;
        } else if known {
            reporter.say(format!("{}: --fresh forgets what was done", planned.name));
        }
    }
    state.write(&plan.folder)
}

/// Moves a folder aside, and says where to.
pub fn put_aside(folder: &Path) -> Result<PathBuf> {
    let aside = free_name(folder);
    fs::rename(folder, &aside).map_err(|error| Failure::io("move aside", folder, error))?;
    Ok(aside)
}

fn free_name(folder: &Path) -> PathBuf {
    let mut number = 1;
    loop {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(".old-{number}"));
        let path = PathBuf::from(name);
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}

/// Whether two paths are one file, or at least of one size and time.
pub fn same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => one.len() == other.len() && one.modified().ok() == other.modified().ok(),
        _ => false,
    }
}
