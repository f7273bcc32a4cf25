//! `preprocess`: the stage of this name, from the command line.
use notation::preprocess::{Keys, Options};
use serde_json::Value;

use crate::{
    cli::arguments::PreprocessArgs,
    common::{
        failure::{Failure, Result},
        progress::{self, Reporter},
        signals,
    },
    stages::{context::Ended, preprocess::convert},
};

pub fn run(args: &PreprocessArgs, json: bool) -> Result<()> {
    if !(0.0..1.0).contains(&args.eval_split) {
        return Err(Failure::usage(format!("--eval-split {}: not at least 0 and less than 1", args.eval_split)));
    }
    let options = Options {
        interleaved: args.interleaved.clone(),
        pack: args.pack.clone(),
        prompts: args.prompts.clone(),
        eval_split: args.eval_split,
        seed: args.seed,
        keys: args.keys.unwrap_or(if args.pack.is_some() { Keys::None } else { Keys::All }),
        ..Options::new(&args.scores, "", &args.augmented)
    };
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(false);
    match convert(options, &stop, &mut reporter)? {
        Ended::Done(outputs) => {
            reporter.end();
            if json {
                progress::output(&Value::Object(outputs.facts));
            }
            Ok(())
        }
        Ended::Interrupted => Err(Failure::interrupted("stopped by a signal; the pieces that are done are kept")),
    }
}
