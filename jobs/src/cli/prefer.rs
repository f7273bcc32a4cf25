//! `prefer`: the preference data of DPO, from the command line.
use crate::cli::arguments::PreferArgs;
use crate::common::failure::{Failure, Result};
use crate::common::progress;
use crate::stages::prefer::{PreferJob, choose};

pub fn run(args: &PreferArgs, json: bool) -> Result<()> {
    if !(args.select > 0.0 && args.select <= 0.5) {
        return Err(Failure::usage(format!("--select {}: not above 0 and at most 0.5", args.select)));
    }
    if args.similarity_limit.is_nan() {
        return Err(Failure::usage("--similarity-limit is not a number"));
    }
    let choice = choose(&PreferJob {
        reference: args.reference.clone(),
        features: args.features.clone(),
        interleaved: args.interleaved.clone(),
        original: args.original.clone(),
        select: args.select,
        similarity_limit: args.similarity_limit,
        output: args.output.clone(),
    })?;
    eprintln!("{}", choice.summary());
    if let Some(warning) = choice.warning() {
        eprintln!("warning: {warning}");
    }
    if json {
        progress::output(&choice.facts());
    }
    Ok(())
}
