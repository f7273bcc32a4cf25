//! Features of pieces by CLaMP 2 or M3 (the original's `clamp2/extract_clamp2.py`).
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::m3::{MusicEncoder, Patchiliser, feature_text};
use model::patches::Patches;
use notation::corpus::{self, PieceSource};
use serde_json::json;
use tch::{Device, Tensor};
use trainer::Dtype;

use crate::common::failure::{Failure, Result};
use crate::common::files::{make_folder, remove, save};
use crate::common::lock::Lock;
use crate::common::progress::{self, Reporter};
use crate::plan::Planned;
use crate::plan::state::Outputs;
use crate::recipe::{Features, Init};
use crate::stages::context::{Context, Ended};

/// Patches whose features are taken, and written, together: enough to keep the machine busy.
const PATCHES_AT_ONCE_CPU: usize = 2_048;
const PATCHES_AT_ONCE_GPU: usize = 16_384;

/// What to take features of, and where to put them.
pub struct FeaturesJob {
    pub weights: PathBuf,
    pub input: PathBuf,
    /// Glob on the names of the pieces.
    pub pieces: Option<String>,
    pub output: PathBuf,
    /// (i, n): only pieces whose number, from 0, leaves i when divided by n.
    pub shard: (usize, usize),
    pub precision: Dtype,
    pub device: Device,
}

pub fn run(stage: &Features, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let weights = context.weights(&Init::parse(&stage.weights).map_err(Failure::usage)?)?;
    let job = FeaturesJob {
        weights,
        input: stage.input.clone(),
        pieces: stage.pieces.clone(),
        output: stage.output.clone(),
        shard: context.shard,
        precision: stage.precision.dtype(),
        device: context.device,
    };
    extract(&job, &planned.fingerprint.digest, context.stop, context.reporter)
}

/// The features of a folder of pieces.
pub struct FeatureSet {
    /// Names of the pieces, in order.
    pub names: Vec<String>,
    /// (pieces, width)
    pub features: Tensor,
}

impl FeatureSet {
    /// # Errors
    /// A file that is no feature, a folder without any.
    pub fn read(folder: &Path) -> Result<FeatureSet> {
        let found = model::features::read_folder(folder)?;
        if let Some(error) = found.damaged.into_iter().next() {
            return Err(Failure::from(error).hint("remove it, and take the features again"));
        }
        if found.features.is_empty() {
            return Err(Failure::failed(format!("{}: no features (.npy) in it", folder.display()))
                .hint("notagen-train features --weights CLAMP2 --input PIECES --output FEATURES"));
        }
        let (names, rows): (Vec<String>, Vec<Vec<f32>>) = found.features.into_iter().unzip();
        let features = Tensor::f_from_slice(&rows.concat())?.f_view([names.len() as i64, -1])?;
        Ok(FeatureSet { names, features })
    }
}

/// One piece to take features of.
struct PieceFiles {
    piece: PieceSource,
    path: PathBuf,
    /// Its features.
    to: PathBuf,
}

/// Makes the features that are missing or older than their pieces. `mark` tells features of these weights from others:
/// those of others are made anew.
pub fn extract(job: &FeaturesJob, mark: &str, stop: &AtomicBool, reporter: &mut Reporter) -> Result<Ended> {
    let all = sources(job)?;
    make_folder(&job.output)?;
    let beside = |what: &str| job.output.with_file_name(format!(".{}.{what}", name(&job.output)));
    let alone = Lock::at(&beside("lock"), Lock::SHARES)?;
    let marked = beside("settings");
    let same = fs::read_to_string(&marked).is_ok_and(|found| found == mark);
    if !same {
        // Without the mark the folder's features count as foreign: a killed run begins it again from the start.
        remove(&marked)?;
        for source in &all {
            remove(&source.to)?;
        }
        save(&marked, mark)?;
    }
    drop(alone);
    let (first, step) = job.shard;
    let sources: Vec<PieceFiles> = all.into_iter().skip(first).step_by(step).collect();
    let total = sources.len();
    let missing: Vec<PieceFiles> =
        sources.into_iter().filter(|source| !is_newer(&source.to, file(source, job))).collect();
    let before = total - missing.len();
    let mut failed: Vec<(PathBuf, String)> = Vec::new();
    let begun = Instant::now();
    if !missing.is_empty() {
        let encoder = MusicEncoder::load(&job.weights, job.device, job.precision.kind())?;
        let patchiliser = encoder.patchiliser()?;
        let mut batch: Vec<(PathBuf, Patches)> = Vec::new();
        let at_once = if job.device.is_cuda() { PATCHES_AT_ONCE_GPU } else { PATCHES_AT_ONCE_CPU };
        let (mut waiting, mut done) = (0, before);
        let last = missing.len() - 1;
        for (at, source) in missing.into_iter().enumerate() {
            match read(&source.piece, &patchiliser) {
                Ok(patches) => {
                    waiting += patches.len();
                    batch.push((source.to, patches));
                }
                Err(reason) => {
                    reporter.warn(format!("{}: {reason}", source.path.display()));
                    failed.push((source.path, reason));
                    done += 1;
                }
            }
            if waiting >= at_once || at == last {
                done += batch.len();
                embed(&encoder, &mut batch)?;
                waiting = 0;
                let speed = (done - before) as f64 / begun.elapsed().as_secs_f64();
                reporter.progress(done as u64, Some(total as u64), &format!("pieces, {speed:.1} a second"));
                if stop.load(Ordering::Relaxed) && at != last {
                    return Ok(Ended::Interrupted);
                }
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    note_failed(job, &failed)?;
    if let Some((path, reason)) = failed.first()
        && failed.len() == total
    {
        return Err(Failure::failed(format!("no piece could be read; the first: {}: {reason}", path.display())));
    }
    reporter.say(format!(
        "{} features in {} ({before} there before, {} pieces failed) in {}",
        total - failed.len(),
        job.output.display(),
        failed.len(),
        progress::duration(seconds)
    ));
    let facts = json!({
        "pieces": total - failed.len(),
        "failed": failed.len(),
        "unchanged": before,
        "seconds": seconds,
    });
    Ok(Ended::Done(Outputs::new(vec![job.output.clone()], &facts)))
}

/// The pieces of all shards, in the order of their names.
fn sources(job: &FeaturesJob) -> Result<Vec<PieceFiles>> {
    let glob = job.pieces.as_deref().map(trainer::glob).transpose()?;
    let mut sources: Vec<PieceFiles> = Vec::new();
    let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
    for piece in corpus::list(&job.input, &["abc", "mtf"])? {
        let path = piece.path();
        if glob.as_ref().is_some_and(|glob| !glob.is_match(path.file_stem().unwrap_or_default())) {
            continue;
        }
        let within = path.strip_prefix(&job.input).unwrap_or(&path).with_extension("npy");
        let to = job.output.join(within);
        if let Some(other) = taken.insert(to.clone(), path.clone()) {
            return Err(Failure::failed(format!(
                "{} and {} would share one file of features",
                other.display(),
                path.display()
            ))
            .hint("rename one of them"));
        }
        sources.push(PieceFiles { piece, path, to });
    }
    if sources.is_empty() {
        let of = job.pieces.as_ref().map_or_else(String::new, |pieces| format!(" that match `{pieces}`"));
        return Err(Failure::failed(format!("{}: no .abc or .mtf files{of}", job.input.display())));
    }
    Ok(sources)
}

/// What is newer than a piece's features when they have to be taken anew.
fn file<'a>(work: &'a PieceFiles, job: &'a FeaturesJob) -> &'a Path {
    match work.piece {
        PieceSource::Packed(..) => &job.input,
        _ => &work.path,
    }
}

fn read(piece: &PieceSource, patchiliser: &Patchiliser) -> std::result::Result<Patches, String> {
    let text = feature_text(piece).map_err(|error| error.to_string())?;
    patchiliser.encode(&text).map_err(|error| error.to_string())
}

fn embed(encoder: &MusicEncoder, batch: &mut Vec<(PathBuf, Patches)>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let (paths, pieces): (Vec<PathBuf>, Vec<Patches>) = batch.drain(..).unzip();
    let features = encoder.embed(&pieces)?;
    for (row, path) in paths.iter().enumerate() {
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        model::features::write(path, &Vec::<f32>::try_from(features.f_get(row as i64)?)?)?;
    }
    Ok(())
}

/// Pieces that could not be read, with the reasons, beside the features; no file where there are none.
fn note_failed(job: &FeaturesJob, failed: &[(PathBuf, String)]) -> Result<()> {
    let (shard, of) = job.shard;
    let part = if of == 1 { String::new() } else { format!("-{shard}-of-{of}") };
    let path = job.output.with_file_name(format!("{}_failed{part}.jsonl", name(&job.output)));
    if failed.is_empty() {
        return remove(&path);
    }
    let lines: String =
        failed.iter().map(|(path, reason)| format!("{}\n", json!({ "path": path, "reason": reason }))).collect();
    save(&path, lines)
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    time(file).zip(time(than)).is_some_and(|(file, than)| file >= than)
}
