//! `features`: features of a folder of pieces, from the command line.
use serde_json::Value;

use crate::{
    cli::{
        arguments::FeaturesArgs,
        weights::{there, version},
    },
    common::{
        failure::{Failure, Result},
        loading,
        progress::{self, Reporter},
        signals,
    },
    launch::device,
    stages::{
        context::Ended,
        features::{FeaturesJob, extract},
    },
};

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
        device: device::choose(args.on.device.into())?,
    };
    let mark = format!("{} {:?}\n", version(&job.weights)?, job.precision);
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(false);
    let ended = extract(&job, &mark, &stop, &mut reporter)?;
    reporter.end();
    match ended {
        Ended::Done(outputs) => {
            if json {
                progress::output(&Value::Object(outputs.facts));
            }
            Ok(())
        }
        Ended::Interrupted => Err(Failure::interrupted("stopped by a signal; the features that are done are kept")
            .hint("the same command goes on from here")),
    }
}
