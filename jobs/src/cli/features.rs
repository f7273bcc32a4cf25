//! `features`: features of a folder of pieces, from the command line.
use crate::cli::arguments::FeaturesArgs;
use crate::cli::ending::finish;
use crate::cli::weights::{there, version};
use crate::common::failure::Result;
use crate::common::progress::Reporter;
use crate::common::{loading, signals};
use crate::launch::device;
use crate::stages::features::{FeaturesJob, extract};

pub fn run(args: &FeaturesArgs, json: bool) -> Result<()> {
    let weights = there(&args.weights)?;
    loading::check_encoder(&weights)?;
    let job = FeaturesJob {
        weights,
        input: args.input.clone(),
        pieces: args.pieces.clone(),
        output: args.output.clone(),
        shard: args.shard,
        precision: args.on.precision,
        device: device::choose(args.on.device)?,
    };
    let mark = format!("{} {:?}\n", version(&job.weights)?, job.precision);
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(false);
    let ended = extract(&job, &mark, &stop, &mut reporter)?;
    finish(ended, reporter, json, "features").map(drop)
}
