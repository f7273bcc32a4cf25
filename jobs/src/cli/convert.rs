//! `convert`: scores to ABC, MusicXML or MIDI, on all cores, each file for itself. The pieces of a packed corpus become
//! files as well, of ABC as it is there.
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::{fs, thread};

use notation::corpus::{self, PieceSource};
use notation::export::{to_midi, to_musicxml};
use notation::musicxml::{self, is_musicxml};
use notation::pack::is_pack;
use serde_json::json;

use crate::cli::arguments::{ConvertArgs, Format};
use crate::common::failure::{Failure, Result};
use crate::common::progress::{self, Reporter};
use crate::common::{files, signals};

/// Warnings of one file that people see; programs see all of them.
const SHOWN: usize = 5;

struct Conversion {
    piece: PieceSource,
    /// What the piece is called.
    source: PathBuf,
    /// Where it is: of a packed piece the pack.
    file: PathBuf,
    target: PathBuf,
}

enum Outcome {
    Converted(Vec<String>),
    UpToDate,
    Failed { message: String, hint: Option<String> },
}

pub fn run(args: &ConvertArgs, json: bool) -> Result<()> {
    let (jobs, clashes) = jobs(args)?;
    files::make_folder(&args.output)?;
    let stop = signals::stop_flag()?;
    let mut reporter = Reporter::new(json);
    let mut counts = Counts::default();
    for (job, other) in &clashes {
        let message = format!("{} would be written as {} is", job.source.display(), other.display());
        counts.add(job, &Outcome::Failed { message, hint: None }, &mut reporter, json);
    }

    let total = jobs.len() + clashes.len();
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..workers {
            let sender = sender.clone();
            let (jobs, next, stop) = (&jobs, &next, &stop);
            scope.spawn(move || work(args.to, jobs, next, stop, &sender));
        }
        drop(sender);
        for (number, outcome) in receiver {
            counts.add(&jobs[number], &outcome, &mut reporter, json);
            reporter.progress(counts.all() as u64, Some(total as u64), "files");
        }
    });
    reporter.end();
    let Counts { converted, warned, up_to_date, failed } = counts;
    reporter.say(format!("{converted} converted ({warned} with warnings), {up_to_date} up to date, {failed} failed"));
    if stop.load(Ordering::Relaxed) && counts.all() < total {
        return Err(Failure::interrupted("stopped by a signal; the files that are done are kept"));
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("{failed} of {total} files could not be converted"))),
    }
}

#[derive(Default)]
struct Counts {
    converted: usize,
    warned: usize,
    up_to_date: usize,
    failed: usize,
}

impl Counts {
    fn all(&self) -> usize {
        self.converted + self.up_to_date + self.failed
    }

    fn add(&mut self, job: &Conversion, outcome: &Outcome, reporter: &mut Reporter, json: bool) {
        let path = job.source.display().to_string();
        let output = job.target.display().to_string();
        let line = match outcome {
            Outcome::Converted(warnings) => {
                self.converted += 1;
                self.warned += usize::from(!warnings.is_empty());
                for warning in warnings.iter().take(SHOWN) {
                    reporter.say(format!("warning: {warning}"));
                }
                if warnings.len() > SHOWN {
                    reporter.say(format!("warning: {path}: {} more, which --json shows", warnings.len() - SHOWN));
                }
                json!({ "path": path, "status": "converted", "output": output, "warnings": warnings })
            }
            Outcome::UpToDate => {
                self.up_to_date += 1;
                json!({ "path": path, "status": "up_to_date", "output": output })
            }
            Outcome::Failed { message, hint } => {
                self.failed += 1;
                reporter.say(format!("failed: {message}"));
                if let Some(hint) = hint {
                    reporter.say(format!("hint: {hint}"));
                }
                json!({ "path": path, "status": "failed", "error": message, "hint": hint })
            }
        };
        if json {
            progress::output(&line);
        }
    }
}

fn work(
    to: Format,
    jobs: &[Conversion],
    next: &AtomicUsize,
    stop: &AtomicBool,
    sender: &mpsc::Sender<(usize, Outcome)>,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(job) = jobs.get(number) else { return };
        // A fault of our own on one file must not end the run either.
        let outcome = catch_unwind(AssertUnwindSafe(|| convert(to, job))).unwrap_or_else(|_| Outcome::Failed {
            message: format!("{}: the conversion broke off: a fault of notagen-train", job.source.display()),
            hint: Some("please report it with the file".to_owned()),
        });
        if sender.send((number, outcome)).is_err() {
            return;
        }
    }
}

fn convert(to: Format, job: &Conversion) -> Outcome {
    if up_to_date(job) {
        return Outcome::UpToDate;
    }
    let failed = |error: notation::Error| Outcome::Failed { message: error.to_string(), hint: error.hint() };
    let bytes = match job.piece.read() {
        Ok(bytes) => bytes,
        Err(error) => return failed(error),
    };
    let name = job.source.display().to_string();
    let mut warnings = Vec::new();
    let text = if is_musicxml(&name) {
        match musicxml::to_abc(&bytes, &name, &musicxml::MusicXmlOptions::default()) {
            Ok(converted) => {
                warnings.extend(converted.warnings.iter().map(|warning| format!("{name}: {warning}")));
                converted.abc
            }
            Err(error) => return failed(error),
        }
    } else {
        decode(bytes, &name, &mut warnings)
    };
    let output = match to {
        Format::Abc => Ok(text.into_bytes()),
        Format::Musicxml => to_musicxml(&text, &name).map(|exported| {
            warnings.extend(exported.warnings.iter().map(ToString::to_string));
            exported.output.into_bytes()
        }),
        Format::Midi => to_midi(&text, &name).map(|exported| {
            warnings.extend(exported.warnings.iter().map(ToString::to_string));
            exported.output
        }),
    };
    match output {
        Ok(output) => match files::save(&job.target, &output) {
            Ok(()) => Outcome::Converted(warnings),
            Err(failure) => Outcome::Failed { message: failure.to_string(), hint: None },
        },
        Err(error) => failed(error),
    }
}

/// As the original reads: UTF-8, or else Latin-1.
fn decode(bytes: Vec<u8>, name: &str, warnings: &mut Vec<String>) -> String {
    String::from_utf8(bytes).map(|text| text.trim_start_matches('\u{feff}').to_owned()).unwrap_or_else(|error| {
        warnings.push(format!("{name}: not UTF-8; read as Latin-1"));
        error.into_bytes().into_iter().map(char::from).collect()
    })
}

/// The output is not older than the score. It is whole: it was renamed to its place.
fn up_to_date(job: &Conversion) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    matches!((time(&job.file), time(&job.target)), (Some(source), Some(target)) if target >= source)
}

/// What to convert, and what cannot be, with the file that would be written to the same place.
type Work = (Vec<Conversion>, Vec<(Conversion, PathBuf)>);

/// What there is to do, in the order of the names.
fn jobs(args: &ConvertArgs) -> Result<Work> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    let mut packed: HashMap<PathBuf, (PieceSource, PathBuf)> = HashMap::new();
    for path in &args.paths {
        if is_pack(path) {
            for piece in corpus::list(path, &[])? {
                let called = piece.path();
                let name = called.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push((called.clone(), name));
                packed.insert(called, (piece, path.clone()));
            }
        } else if path.is_dir() {
            let before = found.len();
            walk(path, String::new(), args, &mut found)?;
            if found.len() == before {
                let kinds = if args.to == Format::Abc { "MusicXML" } else { "ABC or MusicXML" };
                return Err(Failure::usage(format!("{}: no {kinds} files here", path.display())));
            }
        } else if path.exists() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !wanted(&name, args.to) {
                let hint = "MusicXML (.xml, .musicxml, .mxl) or, for MusicXML and MIDI, ABC (.abc)";
                return Err(Failure::usage(format!("{}: not a score to convert", path.display())).hint(hint));
            }
            found.push((path.clone(), name));
        } else {
            return Err(Failure::usage(format!("{}: no such file or folder", path.display())));
        }
    }
    found.sort();
    found.dedup();

    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    let mut same: HashMap<String, usize> = HashMap::new();
    for (_, name) in &found {
        *same.entry(stem(name).to_lowercase()).or_default() += 1;
    }
    let extension = match args.to {
        Format::Abc => "abc",
        Format::Musicxml => "musicxml",
        Format::Midi => "mid",
    };
    let (mut jobs, mut clashes) = (Vec::new(), Vec::new());
    let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
    for (source, name) in found {
        let mut target = stem(&name);
        if same.get(&target.to_lowercase()).is_some_and(|count| *count > 1) {
            // `a.xml` and `a.mxl`.
            let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
            target = format!("{target}-{kind}");
        }
        let (piece, file) =
            packed.remove(&source).unwrap_or_else(|| (PieceSource::File(source.clone()), source.clone()));
        let job = Conversion { target: args.output.join(format!("{target}.{extension}")), piece, source, file };
        match taken.get(&job.target) {
            Some(other) => {
                let other = other.clone();
                clashes.push((job, other));
            }
            None => {
                taken.insert(job.target.clone(), job.source.clone());
                jobs.push(job);
            }
        }
    }
    Ok((jobs, clashes))
}

fn wanted(name: &str, to: Format) -> bool {
    is_musicxml(name) || (to != Format::Abc && name.to_lowercase().ends_with(".abc"))
}

/// The scores below a folder, with names that have the folders in them: `op1/no2.xml` is `op1_no2.xml`.
fn walk(folder: &Path, prefix: String, args: &ConvertArgs, found: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::io("read", folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Failure::io("read", folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name.starts_with('.') || path == args.output {
            continue;
        }
        // Links to folders may lead round and round.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            walk(&path, format!("{prefix}{name}_"), args, found)?;
        } else if path.is_file() && wanted(&name, args.to) {
            found.push((path, format!("{prefix}{name}")));
        }
    }
    Ok(())
}
