//! `generate`: pieces from weights, from the command line.
use std::fs;
use std::path::Path;

use model::patches::check_characters;
use model::sampling::Sampling;
use notation::preprocess::{Keys, convert, standard};
use serde_json::Value;

use crate::cli::arguments::GenerateArgs;
use crate::cli::ending::finish;
use crate::cli::weights::{there, version};
use crate::common::failure::{Failure, Result};
use crate::common::progress::Reporter;
use crate::common::signals;
use crate::launch::device;
use crate::recipe::check;
use crate::stages::generate::{GenerateJob, read_mark, write};

pub fn run(args: &GenerateArgs, json: bool) -> Result<()> {
    let sampling = Sampling { top_k: args.top_k.into(), top_p: args.top_p, temperature: args.temperature };
    sampling.check().map_err(|error| Failure::usage(error.to_string()))?;
    if args.samples == 0 || args.batch_size == Some(0) {
        return Err(Failure::usage("--samples and --batch-size are counted from 1"));
    }
    let continue_from = args.continue_file.as_deref().map(piece).transpose()?;
    let prompts = match &args.prompts {
        Some(path) => prompts(path)?,
        None => args.prompt.iter().cloned().collect(),
    };
    check::prompts(&prompts).map_err(Failure::usage)?;
    let job = GenerateJob {
        weights: there(&args.weights)?,
        output: args.output.clone(),
        samples: args.samples,
        batch_size: args.batch_size,
        seed: args.seed,
        sampling,
        prompts,
        shard: args.shard,
        continue_from,
        max_seconds: args.max_seconds,
        max_characters: args.max_characters,
        max_patches: args.max_patches,
        precision: args.on.precision,
        device: device::choose(args.on.device)?,
        profile: args.profile.map(|rounds| (rounds, args.output.join("profile.json"))),
    };
    let mark = mark(&job)?;
    if read_mark(&job.output).is_some_and(|found| found != mark) {
        return Err(Failure::usage(format!("{} has pieces of other weights or settings", job.output.display()))
            .hint("choose another --output, or remove it"));
    }
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(false);
    let ended = write(&job, &mark, &stop, &mut reporter)?;
    let outputs = finish(ended, reporter, json, "pieces")?;
    let count = |fact: &str| outputs.facts.get(fact).map(Value::to_string).unwrap_or_default();
    eprintln!("{} pieces in {} ({} attempts failed)", count("pieces"), job.output.display(), count("failed"));
    Ok(())
}

/// The prompts of a file, one a line.
pub fn prompts(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(|error| Failure::io("read", path, error))?;
    let prompts: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(Failure::failed(format!("{}: no prompts in it", path.display()))
            .hint("one Period_Composer_Instrumentation a line"));
    }
    Ok(prompts)
}

/// A piece to go on from, in the form that the network writes: MusicXML and standard ABC are brought into it.
fn piece(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Failure::io("read", path, error))?;
    let wrong = |error: notation::Error| Failure::failed(format!("{}: {error}", path.display())).hint_if(error.hint());
    let (text, warnings) = standard(&bytes).map_err(wrong)?;
    for warning in warnings {
        eprintln!("{}: {warning}", path.display());
    }
    check_characters(&text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    if text.lines().any(|line| line.starts_with("[V:") || line.starts_with("[r:")) {
        return Ok(text.into_owned());
    }
    // One key is asked for, so one comes.
    let reduced = convert(text.as_bytes(), Keys::Original).map_err(wrong)?.reduced;
    reduced
        .into_iter()
        .next()
        .map(|(_, abc)| abc)
        .ok_or_else(|| Failure::failed(format!("{}: no music", path.display())))
}

/// What the pieces depend on.
fn mark(job: &GenerateJob) -> Result<String> {
    Ok(format!(
        "{}\nseed {}\n{:?}\n{:?}\n{:?}\n{:?} {:?} {:?}\n",
        version(&job.weights)?,
        job.seed,
        job.sampling,
        job.prompts,
        job.continue_from,
        job.max_characters,
        job.max_patches,
        job.precision,
    ))
}
