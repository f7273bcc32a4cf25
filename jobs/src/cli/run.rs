//! Runs a recipe, or says what a run would do.
use crate::{
    cli::plan::show,
    common::{
        digests::Digests,
        failure::{Failure, Result},
    },
    plan::state::State,
    recipe::paths::run_folder,
    report,
    run::{self, RunArgs},
};

pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    let path = args.recipe.as_deref().ok_or_else(|| Failure::usage("no recipe is given"))?;
    let resolved = run::load(path, &args.set)?;
    if !args.dry_run {
        return run::run(args, resolved, report::write, json);
    }
    let folder = run_folder(&resolved.recipe.name);
    let mut digests = Digests::open(&folder.join("digests.json"));
    let plan = run::foreseen(args, resolved, &State::read(&folder)?, &mut digests)?;
    show(&plan, json);
    plan.check_inputs()
}
