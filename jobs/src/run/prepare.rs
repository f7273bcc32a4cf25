//! What is done before a recipe is run: the plan, the checks, the weights that are fetched.
use std::sync::atomic::AtomicBool;

use super::arguments::RunArgs;
use crate::common::digests::Digests;
use crate::common::failure::Result;
use crate::common::progress::Reporter;
use crate::common::signals;
use crate::hub::Hub;
use crate::plan::Plan;
use crate::plan::state::RunState;
use crate::recipe::paths::run_folder;
use crate::recipe::{Native, Resolved};

/// What the command line would do, `--fresh` included.
pub fn plan_run(
    args: &RunArgs,
    resolved: Resolved,
    state: &RunState,
    native: Native,
    digests: &mut Digests,
) -> Result<Plan> {
    let mut plan = Plan::new(resolved, &args.selection, state, native, digests)?;
    if args.fresh {
        plan.begin_afresh();
    }
    Ok(plan)
}

/// Plans a run, reports what is wrong before anything is written, and fetches missing weights. Returns the plan, and the
/// state that it was made for.
pub fn prepare(
    args: &RunArgs,
    resolved: Resolved,
    native: Native,
    digests: &mut Digests,
    reporter: &mut Reporter,
    stop: &AtomicBool,
) -> Result<(Plan, RunState)> {
    let state = RunState::read(&run_folder(&resolved.recipe.name))?;
    let mut plan = plan_run(args, resolved, &state, native, digests)?;
    plan.check_inputs()?;
    if fetch(&plan, reporter, stop)? {
        plan.compare_all(&state, digests)?;
    }
    plan.check_weights(&state)?;
    signals::check_stop(stop)?;
    Ok((plan, state))
}

/// Fetches the files of the hub that the stages to run need. Returns whether there were any.
///
/// # Errors
/// What the hub, the network or this machine does not give.
pub fn fetch(plan: &Plan, reporter: &mut Reporter, stop: &AtomicBool) -> Result<bool> {
    let files = plan.to_fetch();
    if files.is_empty() {
        return Ok(false);
    }
    let hub = Hub::from_env()?;
    for (planned, file) in files {
        if let Some(fetched) = hub.provide(file, reporter, stop).map_err(|failure| failure.in_stage(&planned.name))? {
            let (path, cached) = (file.path(), fetched.path);
            reporter.say(format!("{}: {} is {} in the hub's cache", planned.name, path.display(), cached.display()));
        }
    }
    reporter.end();
    Ok(true)
}
