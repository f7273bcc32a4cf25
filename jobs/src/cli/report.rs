//! `report`: the page about a run, written anew.
use std::path::Path;

use serde_json::json;

use crate::common::digests::Digests;
use crate::common::failure::Result;
use crate::common::progress;
use crate::plan::state::RunState;
use crate::plan::{Plan, Selection};
use crate::recipe;
use crate::recipe::paths::find_run;
use crate::report;

pub fn run(run: &Path, json: bool) -> Result<()> {
    let folder = find_run(run)?;
    let resolved = recipe::load(&folder.join("recipe.yaml"), &[])?;
    let state = RunState::read(&folder)?;
    let mut plan = Plan::outline(resolved, &Selection::default(), &state)?;
    plan.folder.clone_from(&folder);
    let mut digests = Digests::open(&folder);
    let path = report::write(&plan, &state, &mut digests)?;
    digests.save();
    eprintln!("{}", path.display());
    if json {
        progress::output(&json!({ "path": path }));
    }
    Ok(())
}
