//! `preprocess`: the stage of this name, from the command line.
use notation::preprocess::{Keys, PreprocessOptions};

use crate::cli::arguments::PreprocessArgs;
use crate::cli::ending::finish;
use crate::common::failure::{Failure, Result};
use crate::common::progress::Reporter;
use crate::common::signals;
use crate::stages::preprocess::convert;

pub fn run(args: &PreprocessArgs, json: bool) -> Result<()> {
    if !(0.0..1.0).contains(&args.eval_split) {
        return Err(Failure::usage(format!("--eval-split {}: not at least 0 and less than 1", args.eval_split)));
    }
    let options = PreprocessOptions {
        interleaved: args.interleaved.clone(),
        pack: args.pack.clone(),
        prompts: args.prompts.clone(),
        eval_split: args.eval_split,
        seed: args.seed,
        keys: args.keys.unwrap_or(if args.pack.is_some() { Keys::None } else { Keys::All }),
        ..PreprocessOptions::new(&args.scores, "", &args.augmented)
    };
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(false);
    let ended = convert(options, &stop, &mut reporter)?;
    finish(ended, reporter, json, "pieces").map(drop)
}
