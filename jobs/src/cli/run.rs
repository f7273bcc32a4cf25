//! Runs a recipe, or says what a run would do.
use crate::{
    cli::plan::foresee,
    common::failure::{Failure, Result},
    recipe, report,
    run::{self, RunArgs},
};

pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    let path = args.recipe.as_deref().ok_or_else(|| Failure::usage("no recipe is given"))?;
    let resolved = recipe::load(path, &args.set)?;
    if !args.dry_run {
        return run::run(args, resolved, report::write, json);
    }
    let (plan, _) = foresee(args, resolved, json)?;
    plan.check_inputs()
}
