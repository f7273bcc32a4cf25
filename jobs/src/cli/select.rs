//! `select`: the best of a corpus, from the command line.
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::arguments::{ByArg, SelectArgs};
use crate::cli::ending::finish;
use crate::cli::weights::{there, version};
use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::progress::Reporter;
use crate::common::{files, loading, signals};
use crate::launch::device;
use crate::recipe::By;
use crate::stages::select::choose;
use crate::stages::select::job::SelectJob;

pub fn run(args: &SelectArgs, json: bool) -> Result<()> {
    let job = job(args)?;
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(false);
    keep_scores(&job)?;
    let ended = choose(&job, &stop, &mut reporter)?;
    finish(ended, reporter, json, "scores").map(drop)
}

fn job(args: &SelectArgs) -> Result<SelectJob> {
    let by = match (args.by, &args.weights, &args.clamp2) {
        (Some(ByArg::LogProbability) | None, Some(_), _) => By::LogProbability,
        (Some(ByArg::Clamp2) | None, _, Some(_)) => By::Clamp2,
        (Some(ByArg::LogProbability), None, _) => return Err(Failure::usage("--by log-probability needs --weights")),
        (Some(ByArg::Clamp2), ..) => return Err(Failure::usage("--by clamp2 needs --clamp2 and --reference")),
        (None, None, None) => {
            return Err(
                Failure::usage("nothing to rank the pieces by").hint("give --weights, or --clamp2 and --reference")
            );
        }
    };
    if args.count.is_none() && args.portion.is_none() && args.threshold.is_none() {
        return Err(Failure::usage("one of --count, --portion and --threshold is needed"));
    }
    if args.portion.is_some_and(|portion| !(portion > 0.0 && portion <= 1.0)) {
        return Err(Failure::usage("--portion is not above 0 and at most 1"));
    }
    if args.threshold.is_some_and(|threshold| !threshold.is_finite()) || args.duplicates.is_nan() {
        return Err(Failure::usage("--threshold or --duplicates is not a number"));
    }
    let weights = args.weights.as_deref().map(there).transpose()?;
    let judge = match (&args.clamp2, &args.reference) {
        (Some(clamp2), Some(reference)) => {
            let clamp2 = there(clamp2)?;
            loading::check_encoder(&clamp2)?;
            Some((clamp2, reference.clone()))
        }
        _ => None,
    };
    Ok(SelectJob {
        corpus: args.corpus.clone(),
        pieces: args.pieces.clone(),
        by,
        weights,
        judge,
        count: args.count.map(|count| usize::try_from(count.get()).unwrap_or(usize::MAX)),
        portion: args.portion,
        threshold: args.threshold,
        duplicates: Some(args.duplicates),
        output: args.output.clone(),
        scores: scores(&args.output),
        shard: (0, 1),
        precision: args.on.precision,
        device: device::choose(args.on.device)?,
    })
}

/// `.<output>.scores` beside the output.
fn scores(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!(".{name}.scores"))
}

/// Scores of other weights or pieces are begun again.
fn keep_scores(job: &SelectJob) -> Result<()> {
    let mut digests = Digests::default();
    let mut mark = format!("{:?} {:?}\n", job.precision, job.pieces);
    let judge = job.judge.iter().flat_map(|(weights, _)| [weights]);
    for file in job.weights.iter().chain(judge) {
        mark += &format!("{}\n", version(file)?);
    }
    for input in [Some(&job.corpus), job.judge.as_ref().map(|(_, reference)| reference)].into_iter().flatten() {
        mark += &format!("{}\n", digests.of(input).map_err(|error| Failure::io("read", input, error))?);
    }
    let path = job.scores.join("settings");
    if fs::read_to_string(&path).is_ok_and(|found| found == mark) {
        return Ok(());
    }
    files::remove_folder(&job.scores)?;
    files::save(&path, mark)
}
