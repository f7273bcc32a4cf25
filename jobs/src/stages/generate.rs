//! Writes pieces of music: `original/` as the model writes them, `interleaved/` with their rests completed.
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use model::generate::{CudaGraphStats, GenerationEvent, Generator, Options, Start, WrittenPiece, check, tag_lines};
use model::number::{Count, Positive};
use model::prompts;
use model::sampling::Sampling;
use notation::{alignment, interleave, rests, text};
use serde_json::{Value, json};
use tch::{Device, Kind};
use trainer::Dtype;

use crate::common::failure::{Failure, Result};
use crate::common::files::{make_folder, remove_folder, save};
use crate::common::loading;
use crate::common::lock::Lock;
use crate::common::progress::{self, Reporter};
use crate::plan::Planned;
use crate::plan::state::Outputs;
use crate::recipe::Generate;
use crate::stages::context::{Context, Ended};

/// What to write, and where.
pub struct GenerateJob {
    pub weights: PathBuf,
    pub output: PathBuf,
    pub samples: usize,
    pub batch_size: Option<usize>,
    pub seed: u64,
    pub sampling: Sampling,
    /// Taken in turn; none is one empty prompt.
    pub prompts: Vec<String>,
    /// (i, n): only pieces whose number, from 0, leaves i when divided by n.
    pub shard: (usize, usize),
    pub continue_from: Option<String>,
    pub max_seconds: Option<f64>,
    pub max_characters: Option<usize>,
    pub max_patches: Option<usize>,
    pub precision: Dtype,
    pub device: Device,
    /// Rounds to record a Chrome trace of, and its file.
    pub profile: Option<(u64, PathBuf)>,
}

impl GenerateJob {
    /// The numbers, from 0, of the pieces of its shard.
    fn pieces(&self) -> impl Iterator<Item = usize> {
        let (first, step) = self.shard;
        (first..self.samples).step_by(step)
    }

    /// Shards of one folder do not share a summary.
    fn summary(&self) -> PathBuf {
        self.output.join(match self.shard {
            (_, 1) => "summary.json".to_owned(),
            (i, n) => format!("summary-{i}-of-{n}.json"),
        })
    }
}

pub fn run(stage: &Generate, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let init = planned.init.as_ref().ok_or_else(|| Failure::usage("the key `init` is missing"))?;
    let job = GenerateJob {
        weights: context.weights(init)?,
        output: stage.output.clone().unwrap_or_else(|| context.folder.to_owned()),
        samples: stage.samples.get(),
        batch_size: stage.batch_size.map(Count::get),
        seed: stage.seed.unwrap_or(context.plan.recipe.seed),
        sampling: stage.sampling,
        prompts: stage.prompt.iter().chain(stage.prompts.iter().flatten()).cloned().collect(),
        shard: context.shard,
        continue_from: None,
        max_seconds: stage.max_seconds.map(Positive::get),
        max_characters: stage.max_characters.map(Count::get),
        max_patches: stage.max_patches.map(Count::get),
        precision: stage.precision.unwrap_or_default().dtype(),
        device: context.device,
        profile: context.profile.map(|rounds| (rounds, context.folder.join("profile.json"))),
    };
    let mark = planned.fingerprint.digest.as_str();
    make_folder(&job.output)?;
    let alone = Lock::at(&job.output.join(".lock"), Lock::SHARES)?;
    if read_mark(&job.output).is_some_and(|found| found != mark) {
        context.reporter.say(format!("replaces the pieces of other settings in {}", job.output.display()));
        remove(&job.output)?;
    }
    save(&job.output.join(MARK), mark)?;
    drop(alone);
    write(&job, mark, context.stop, context.reporter)
}

/// What pieces with these prompts begin with.
pub fn starts(prompts: &[String], reporter: &mut Reporter) -> Vec<Start> {
    let mut starts = Vec::new();
    for prompt in prompts {
        let lines = prompts::prompt_lines(prompt).unwrap_or_else(|error| {
            let hint = error.hint().unwrap_or_default();
            reporter.say(format!("warning: {error}; the model has to be trained on it ({hint})"));
            prompts::lines(prompt)
        });
        starts.push(Start { prompt: lines, music: None });
    }
    starts
}

/// Writes what is missing of the pieces. `mark` tells pieces of these weights and settings from others.
pub fn write(job: &GenerateJob, mark: &str, stop: &AtomicBool, reporter: &mut Reporter) -> Result<Ended> {
    let whole = job.pieces().all(|index| is_written(&job.output, index));
    if whole && read_mark(&job.output).is_some() {
        return done(job, &Pieces::new(job, mark, stop, reporter).summary()?);
    }
    let model = loading::load(&job.weights, None, job.device)?;
    let mut generator = Generator::new(&model, kind(job.device, job.precision))?;
    drop(model);
    generator.warnings().iter().for_each(|warning| reporter.say(format!("warning: {warning}")));
    let mut pieces = Pieces::new(job, mark, stop, reporter);
    let mut options = Options {
        samples: job.samples,
        batch_size: job.batch_size,
        seed: job.seed,
        sampling: job.sampling,
        starts: pieces.starts(),
        shard: job.shard,
        profile: job.profile.clone(),
        max_patches: job.max_patches,
        skip: &|index| is_written(&job.output, index),
        check: &check,
        ..Options::default()
    };
    options.max_seconds = job.max_seconds.unwrap_or(options.max_seconds);
    options.max_characters = job.max_characters.unwrap_or(options.max_characters);
    let summary = generator.run(&options, &mut |event| pieces.event(&event))?;
    pieces.patches += summary.patches as u64;
    pieces.failed += summary.failed as u64;
    pieces.seconds += summary.seconds;
    pieces.recordings = summary.recordings;
    if let Some(failure) = pieces.failure.take() {
        return Err(failure);
    }
    if summary.stopped {
        pieces.summary()?;
        return Ok(Ended::Interrupted);
    }
    let counts = pieces.summary()?;
    let (given_up, failed) = (summary.given_up.len(), summary.failed);
    if job.shard.1 == 1 && counts["pieces"] == 0 {
        return Err(Failure::failed(format!("no piece was written: all {failed} attempts failed")).hint(
            "the lines above say why; max_seconds and max_characters limit a piece, temperature and weights shape it",
        ));
    }
    if given_up > 0 {
        pieces.reporter.warn(format!("{given_up} pieces are missing: they were given up after all their attempts"));
    }
    done(job, &counts)
}

fn done(job: &GenerateJob, summary: &Value) -> Result<Ended> {
    let files = vec![job.output.join("original"), job.output.join("interleaved"), job.summary()];
    let mut outputs = Outputs::new(files, &summary);
    // Those it read: in the record of a run `weights` are those that a stage leaves.
    outputs.facts.remove("weights");
    Ok(Ended::Done(outputs))
}

/// Half precision is for the GPU: a CPU is as fast in fp32.
pub fn kind(device: Device, precision: Dtype) -> Kind {
    if device.is_cuda() { precision.kind() } else { Kind::Float }
}

const MARK: &str = ".settings";

/// The mark of the pieces in a folder.
pub fn read_mark(output: &Path) -> Option<String> {
    fs::read_to_string(output.join(MARK)).ok()
}

fn remove(output: &Path) -> Result<()> {
    for folder in ["original", "interleaved"].map(|folder| output.join(folder)) {
        remove_folder(&folder)?;
    }
    for summary in [vec![output.join("summary.json")], shares(output)].concat() {
        let _ = fs::remove_file(summary);
    }
    Ok(())
}

/// The summaries of shards.
fn shares(output: &Path) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = fs::read_dir(output).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| name(path).starts_with("summary-") && name(path).ends_with(".json")).collect()
}

fn file(output: &Path, form: &str, index: usize) -> PathBuf {
    output.join(form).join(format!("{:05}.abc", index + 1))
}

/// The original is written last.
fn is_written(output: &Path, index: usize) -> bool {
    file(output, "original", index).is_file()
}

/// Takes the pieces down.
struct Pieces<'a> {
    job: &'a GenerateJob,
    mark: &'a str,
    stop: &'a AtomicBool,
    reporter: &'a mut Reporter,
    patches: u64,
    failed: u64,
    seconds: f64,
    /// In this run.
    to_write: usize,
    recordings: Option<CudaGraphStats>,
    failure: Option<Failure>,
}

impl<'a> Pieces<'a> {
    /// Counts on from the summaries of an interrupted run, and of the shards if this is all of them.
    fn new(job: &'a GenerateJob, mark: &'a str, stop: &'a AtomicBool, reporter: &'a mut Reporter) -> Pieces<'a> {
        let read = |path: PathBuf| -> Option<Value> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
        let mut before: Vec<Value> = read(job.summary()).into_iter().collect();
        if job.shard.1 == 1 {
            before.extend(shares(&job.output).into_iter().filter_map(read));
        }
        let count = |key: &str| before.iter().filter_map(|summary| summary[key].as_u64()).sum();
        Pieces {
            job,
            mark,
            stop,
            reporter,
            patches: count("patches"),
            failed: count("failed"),
            seconds: before.iter().filter_map(|summary| summary["seconds"].as_f64()).sum(),
            to_write: 0,
            recordings: None,
            failure: None,
        }
    }

    fn starts(&mut self) -> Vec<Start> {
        if let Some(abc) = &self.job.continue_from {
            // A text without tags does not say how long the piece shall get: as long again.
            let lines = abc.lines().filter(|line| line.starts_with("[V:")).count();
            return vec![Start { prompt: Vec::new(), music: Some(tag_lines(abc, lines)) }];
        }
        starts(&self.job.prompts, self.reporter)
    }

    fn event(&mut self, event: &GenerationEvent) -> ControlFlow<()> {
        match event {
            GenerationEvent::Started { pieces, batch_size } => {
                if let Err(failure) = self.make_room() {
                    self.failure = Some(failure);
                    return ControlFlow::Break(());
                }
                self.to_write = *pieces;
                self.reporter.say(format!("{pieces} pieces to write, {batch_size} at a time"));
            }
            GenerationEvent::Finished(piece) => {
                if let Err(failure) = self.take(piece) {
                    self.failure = Some(failure);
                    return ControlFlow::Break(());
                }
            }
            GenerationEvent::Failed { index, attempt, reason, retried, .. } => {
                let next = if *retried { "another attempt follows" } else { "it is given up" };
                self.reporter.say(format!("piece {}, attempt {attempt}: {reason}; {next}", index + 1));
            }
            GenerationEvent::Lowered { from, to } => {
                self.reporter.say(format!("memory ran out: {to} pieces at a time instead of {from}"));
            }
            GenerationEvent::Round { pieces, failed, patches, live, seconds } => {
                let speed = *patches as f64 / seconds.max(f64::MIN_POSITIVE);
                let left = match *pieces {
                    0 => String::new(),
                    done => {
                        let seconds = seconds / done as f64 * (self.to_write - done.min(self.to_write)) as f64;
                        format!(", {} left", progress::duration(seconds))
                    }
                };
                let text =
                    format!("pieces, {live} under way, {failed} failed, {patches} patches, {speed:.0} patches/s{left}");
                self.reporter.progress(*pieces as u64, Some(self.to_write as u64), &text);
            }
            GenerationEvent::Began { .. } | GenerationEvent::Text { .. } => {}
        }
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Makes the folders: not before all that can be wrong with weights and prompts is known.
    fn make_room(&self) -> Result<()> {
        for folder in ["original", "interleaved"].map(|folder| self.job.output.join(folder)) {
            make_folder(&folder)?;
        }
        save(&self.job.output.join(MARK), self.mark)
    }

    fn take(&mut self, piece: &WrittenPiece) -> Result<()> {
        let interleaved = rests::unreduce_text(&piece.text)?;
        let aligned = is_aligned(&interleaved);
        save(&file(&self.job.output, "interleaved", piece.index), &interleaved)?;
        let path = file(&self.job.output, "original", piece.index);
        save(&path, &piece.text)?;
        let fields = json!({
            "index": piece.index + 1,
            "path": path,
            "patches": piece.patches,
            "seconds": piece.seconds,
            "attempts": piece.attempts,
            "aligned": aligned,
        });
        self.reporter.event("piece", fields);
        Ok(())
    }

    /// Counts what is there and writes it down.
    fn summary(&self) -> Result<Value> {
        let job = self.job;
        let (mut pieces, mut aligned) = (0_u64, 0_u64);
        for index in job.pieces().filter(|index| is_written(&job.output, *index)) {
            let path = file(&job.output, "interleaved", index);
            let abc = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, error))?;
            pieces += 1;
            aligned += u64::from(is_aligned(&abc));
        }
        let mut summary = json!({
            "pieces": pieces,
            "missing": job.pieces().count() as u64 - pieces,
            "failed": self.failed,
            "patches": self.patches,
            "seconds": self.seconds,
            "patches_per_second": self.patches as f64 / self.seconds.max(f64::MIN_POSITIVE),
            "aligned": if pieces == 0 { 0.0 } else { aligned as f64 / pieces as f64 },
            "weights": job.weights,
            "seed": job.seed,
            "sampling": job.sampling,
        });
        if let Some(recordings) = &self.recordings {
            summary["cuda_graphs"] = json!(recordings);
        }
        let text = serde_json::to_string_pretty(&summary).map_err(|error| Failure::failed(error.to_string()))?;
        save(&job.summary(), &text)?;
        if job.shard.1 == 1 {
            for counted in shares(&job.output) {
                let _ = fs::remove_file(counted);
            }
        }
        Ok(summary)
    }
}

/// Whether the voices go together bar for bar, in number and length: what the original asks of a chosen piece
/// (`RL/data.py`), of the piece with one voice after the other.
pub fn is_aligned(interleaved: &str) -> bool {
    interleave::uninterleave(&text::lines(interleaved))
        .and_then(|lines| alignment::check(&lines))
        .is_ok_and(|found| found.bar_lines && found.bar_numbers && found.durations)
}
