//! How likely each piece of a corpus is, and how like the reference.
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::m3::{self, MusicEncoder};
use model::patches::{Patches, Patchiliser};
use model::{Batch, Mode, NotaGen};
use serde::{Deserialize, Serialize};
use torch_ext::Autocast;
use trainer::preference;

use super::corpus::{Corpus, CorpusPiece};
use super::job::SelectJob;
use crate::common::failure::{Failure, Result};
use crate::common::progress::Reporter;
use crate::common::{files, loading};
use crate::recipe::By;
use crate::stages::features::FeatureSet;
use crate::stages::generate;

/// Pieces that are scored and written down together. The same whatever the shards and interruptions, so that the last bit
/// of a score is, too.
const PIECES_AT_ONCE: usize = 8;
/// Patches of one pass of the network.
const PATCHES_AT_ONCE_CPU: usize = 1_024;
const PATCHES_AT_ONCE_GPU: usize = 8_192;

/// What was found out about a piece.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub piece: String,
    /// Mean of a character, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_probability: Option<f64>,
    /// Characters that it is the mean of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub characters: Option<i64>,
    /// Cosine to the mean of the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp2_score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_reference: Option<String>,
    /// Cosine to that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Score {
    /// The number that it is ranked by.
    pub fn by(&self, by: By) -> Option<f64> {
        match by {
            By::LogProbability => self.log_probability,
            By::Clamp2 => self.clamp2_score,
        }
    }
}

/// The scores of all pieces, in their order; of a shard's, when that is what is asked for. Nothing when told to stop.
pub fn of(
    job: &SelectJob,
    corpus: &Corpus,
    pieces: &[CorpusPiece],
    stop: &AtomicBool,
    reporter: &mut Reporter,
) -> Result<Option<Vec<Score>>> {
    files::make_folder(&job.scores)?;
    let mut known = read(&job.scores)?;
    let is_known =
        |known: &HashMap<String, Score>, part: &[CorpusPiece]| part.iter().all(|piece| known.contains_key(&piece.path));
    let (first, of) = job.shard;
    let parts: Vec<&[CorpusPiece]> = pieces.chunks(PIECES_AT_ONCE).skip(first).step_by(of).collect();
    let total = parts.iter().map(|part| part.len()).sum::<usize>();
    let missing: Vec<&[CorpusPiece]> = parts.into_iter().filter(|part| !is_known(&known, part)).collect();
    if !missing.is_empty() {
        let to_do: usize = missing.iter().map(|part| part.len()).sum();
        reporter.say(format!("{to_do} pieces to score, {} scored before", total - to_do));
        let listener = Listener::load(job)?;
        let path = journal(job);
        rewrite(&path)?;
        let open = OpenOptions::new().append(true).create(true).open(&path);
        let mut file = open.map_err(|error| Failure::io("open", &path, error))?;
        let (begun, mut done) = (Instant::now(), 0);
        for part in missing {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let scores = listener.scores(corpus, part, reporter)?;
            let lines: Vec<String> = scores
                .iter()
                .map(|score| serde_json::to_string(score).map(|line| line + "\n"))
                .collect::<std::result::Result<_, _>>()
                .map_err(|error| Failure::io("write", &path, error))?;
            file.write_all(lines.concat().as_bytes()).map_err(|error| Failure::io("write", &path, error))?;
            known.extend(scores.into_iter().map(|score| (score.piece.clone(), score)));
            done += part.len();
            let speed = done as f64 / begun.elapsed().as_secs_f64();
            reporter.progress(
                (total - to_do + done) as u64,
                Some(total as u64),
                &format!("pieces, {speed:.1} a second"),
            );
        }
    }
    let unscored = |piece: &CorpusPiece| Score { piece: piece.path.clone(), ..Score::default() };
    Ok(Some(pieces.iter().map(|piece| known.get(&piece.path).cloned().unwrap_or_else(|| unscored(piece))).collect()))
}

/// What this process writes down; shares of a stage work in one folder.
fn journal(job: &SelectJob) -> PathBuf {
    let (shard, of) = job.shard;
    let part = if of == 1 { String::new() } else { format!("-{shard}-of-{of}") };
    job.scores.join(format!("scores{part}.jsonl"))
}

/// All that has been written down, by this process and by others.
fn read(folder: &Path) -> Result<HashMap<String, Score>> {
    let mut known = HashMap::new();
    for entry in fs::read_dir(folder).map_err(|error| Failure::io("read", folder, error))? {
        let path = entry.map_err(|error| Failure::io("read", folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("scores") && name.ends_with(".jsonl") {
            known.extend(lines(&path)?.into_iter().map(|score| (score.piece.clone(), score)));
        }
    }
    Ok(known)
}

/// The whole lines of a journal: a kill may have cut the last one short.
fn lines(path: &Path) -> Result<Vec<Score>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::io("read", path, error)),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Drops a line cut short, so that the next one begins on a line of its own.
fn rewrite(path: &Path) -> Result<()> {
    let whole: String =
        lines(path)?.iter().filter_map(|score| serde_json::to_string(score).ok()).map(|line| line + "\n").collect();
    files::save(path, whole)
}

/// The networks that judge.
struct Listener {
    model: Option<(NotaGen, Patchiliser)>,
    judge: Option<(MusicEncoder, m3::Patchiliser, FeatureSet)>,
    precision: tch::Kind,
    at_once: usize,
}

impl Listener {
    fn load(job: &SelectJob) -> Result<Listener> {
        let model = match &job.weights {
            None => None,
            Some(path) => {
                let model = loading::load(path, None, job.device)?;
                let size = usize::try_from(model.architecture().patch_size).unwrap_or(0);
                Some((model, Patchiliser::new(size)?))
            }
        };
        let judge = match &job.judge {
            None => None,
            Some((weights, reference)) => {
                let kind = generate::kind(job.device, job.precision);
                let encoder = MusicEncoder::load(weights, job.device, kind)?;
                let patchiliser = encoder.patchiliser()?;
                Some((encoder, patchiliser, FeatureSet::read(reference)?))
            }
        };
        Ok(Listener {
            model,
            judge,
            precision: job.precision.kind(),
            at_once: if job.device.is_cuda() { PATCHES_AT_ONCE_GPU } else { PATCHES_AT_ONCE_CPU },
        })
    }

    fn scores(&self, corpus: &Corpus, part: &[CorpusPiece], reporter: &mut Reporter) -> Result<Vec<Score>> {
        let mut scores: Vec<Score> =
            part.iter().map(|piece| Score { piece: piece.path.clone(), ..Score::default() }).collect();
        let mut readable: Vec<usize> = Vec::new();
        let (mut reduced, mut music) = (Vec::new(), Vec::new());
        for (at, piece) in part.iter().enumerate() {
            match self.read(corpus, piece) {
                Ok((of_model, of_judge)) => {
                    readable.push(at);
                    reduced.extend(of_model);
                    music.extend(of_judge);
                }
                Err(failure) => {
                    reporter.warn(failure.to_string());
                    scores[at].error = Some(failure.to_string());
                }
            }
        }
        if readable.is_empty() {
            return Ok(scores);
        }
        if let Some((model, _)) = &self.model {
            for (&at, (sum, characters)) in readable.iter().zip(self.log_probabilities(model, &reduced)?) {
                scores[at].log_probability = Some(sum / characters as f64);
                scores[at].characters = Some(characters);
            }
        }
        if let Some((encoder, _, reference)) = &self.judge {
            let features = encoder.embed(&music)?;
            let found = preference::scores(&reference.features, &features)?;
            let nearest = preference::nearest(&reference.features, &features)?;
            for ((&at, score), (like, similarity)) in readable.iter().zip(found).zip(nearest) {
                scores[at].clamp2_score = Some(score);
                scores[at].nearest_reference = Some(reference.names[like].clone());
                scores[at].similarity = Some(similarity);
            }
        }
        Ok(scores)
    }

    /// A piece cut into the patches of each network. One longer than NotaGen's context is taken from its beginning.
    fn read(&self, corpus: &Corpus, piece: &CorpusPiece) -> Result<(Option<Patches>, Option<Patches>)> {
        let texts = corpus.texts(piece)?;
        let of_piece = |error: model::Error| Failure::failed(format!("{}: {error}", piece.path));
        let of_model = self.model.as_ref().map(|(model, patchiliser)| {
            let length = usize::try_from(model.architecture().patch_length).unwrap_or(0);
            patchiliser.encode_train(&texts.reduced, length, &mut |_| 0).map_err(of_piece)
        });
        let of_judge = self.judge.as_ref().map(|(_, patchiliser, _)| {
            let lines = texts.interleaved.split_inclusive('\n');
            let text: String = lines.filter(|line| !line.starts_with('%') || line.starts_with("%%")).collect();
            patchiliser.encode(&text).map_err(of_piece)
        });
        Ok((of_model.transpose()?, of_judge.transpose()?))
    }

    /// The log-probability of each piece and the characters that it is the sum of.
    fn log_probabilities(&self, model: &NotaGen, pieces: &[Patches]) -> Result<Vec<(f64, i64)>> {
        let _no_grad = tch::no_grad_guard();
        let mut found = Vec::new();
        let mut rest = pieces;
        while !rest.is_empty() {
            let mut patches = 0;
            let fitting = rest.iter().take_while(|piece| {
                patches += piece.len();
                patches <= self.at_once
            });
            let (some, others) = rest.split_at(fitting.count().max(1));
            rest = others;
            let batch = Batch::new(some, model.architecture().patch_length)?;
            let characters = batch.characters_of_pieces();
            let _autocast = Autocast::new(model.device(), self.precision)?;
            let sums = model.log_probability(&batch.to_device(model.device())?, Mode::EVAL)?;
            found.extend(Vec::<f64>::try_from(sums.f_to_kind(tch::Kind::Double)?)?.into_iter().zip(characters));
        }
        Ok(found)
    }
}
