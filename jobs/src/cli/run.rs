//! Runs a recipe, or says what a run would do.
use crate::cli::plan::show_plan;
use crate::common::failure::{Failure, Result};
use crate::run::{self, RunArgs};
use crate::{recipe, report};

pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    let path = args.recipe.as_deref().ok_or_else(|| Failure::usage("no recipe is given"))?;
    let resolved = recipe::load(path, &args.set)?;
    if !args.dry_run {
        return run::run(args, resolved, report::write, json);
    }
    let (plan, _) = show_plan(args, resolved, json)?;
    plan.check_inputs()
}
