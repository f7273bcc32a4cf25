//! Ranks a corpus and keeps the best of it: NotaGen-X's "new set of post-training data" (docs/recipes.md, select).
//!
//! First every piece is scored, by several processes where there are some; each writes what it finds down as it goes.
//! Then the scores are ranked, duplicates of better pieces are left out, and an index is written.
mod corpus;
mod duplicates;
pub mod job;
mod scores;

use std::sync::atomic::AtomicBool;

use notation::index::IndexEntry;
use serde_json::{Map, json};
use trainer::preference::{portion, ranking};

use crate::common::failure::{Failure, Result};
use crate::common::files::save;
use crate::common::progress::Reporter;
use crate::plan::Planned;
use crate::plan::state::Outputs;
use crate::recipe::{Init, Select};
use crate::stages::context::{Context, Ended};
use crate::stages::select::job::{SelectJob, beside};
use corpus::{Corpus, CorpusPiece};
use duplicates::Bars;
use scores::Score;

pub fn run(stage: &Select, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let judge = match (&stage.clamp2, &stage.reference) {
        (Some(clamp2), Some(reference)) => {
            let weights = context.weights(&Init::parse(clamp2).map_err(Failure::usage)?)?;
            Some((weights, reference.clone()))
        }
        _ => None,
    };
    let job = SelectJob {
        corpus: stage.corpus.clone(),
        pieces: stage.pieces.clone(),
        by: stage.by,
        weights: planned.init.as_ref().map(|init| context.weights(init)).transpose()?,
        judge,
        count: stage.count.map(|count| count.get()),
        portion: stage.portion.map(|portion| portion.get()),
        threshold: stage.threshold,
        duplicates: stage.duplicates.map(|portion| portion.get()),
        output: stage.output.clone(),
        scores: context.folder.to_owned(),
        shard: context.shard,
        precision: stage.precision.unwrap_or_default().dtype(),
        device: context.device,
    };
    choose(&job, context.stop, context.reporter)
}

/// What becomes of a piece.
struct Verdict {
    word: &'static str,
    /// A better piece that it has so much in common with.
    like: Option<(String, f64)>,
}

impl Verdict {
    fn of(word: &'static str) -> Verdict {
        Verdict { word, like: None }
    }
}

const CHOSEN: &str = "chosen";
const DUPLICATE: &str = "duplicate";
const BELOW: &str = "below the threshold";
const BEYOND: &str = "beyond the count";

/// Scores the corpus and chooses from it.
///
/// # Errors
/// What keeps all pieces from being read, or none that would be chosen.
pub fn choose(job: &SelectJob, stop: &AtomicBool, reporter: &mut Reporter) -> Result<Ended> {
    let (corpus, pieces) = Corpus::open(job)?;
    let Some(scores) = scores::of(job, &corpus, &pieces, stop, reporter)? else { return Ok(Ended::Interrupted) };
    if job.shard.1 > 1 {
        return Ok(Ended::Done(Outputs::default()));
    }
    let scored: Vec<(&CorpusPiece, &Score, f64)> =
        pieces.iter().zip(&scores).filter_map(|(piece, score)| Some((piece, score, score.by(job.by)?))).collect();
    if scored.is_empty() {
        let first = scores.iter().find_map(|score| score.error.clone()).unwrap_or_default();
        return Err(Failure::failed(format!("no piece could be read; the first: {first}")));
    }
    let wanted = job.count.or_else(|| job.portion.map(|share| portion(scored.len(), share)));
    let ranks = ranking(&scored.iter().map(|(.., by)| *by).collect::<Vec<_>>());
    let mut bars = job.duplicates.map(Bars::new);
    let mut chosen: Vec<&CorpusPiece> = Vec::new();
    let mut report = String::new();
    let mut counts: Map<String, serde_json::Value> = Map::new();
    for (rank, &at) in ranks.iter().enumerate() {
        let (piece, score, by) = scored[at];
        let verdict = if wanted.is_some_and(|wanted| chosen.len() >= wanted) {
            Verdict::of(BEYOND)
        } else if job.threshold.is_some_and(|threshold| by < threshold) {
            Verdict::of(BELOW)
        } else {
            let like = match &mut bars {
                Some(bars) => bars.add(&piece.path, &corpus.bars(piece)?),
                None => None,
            };
            Verdict { word: if like.is_some() { DUPLICATE } else { CHOSEN }, like }
        };
        if verdict.word == CHOSEN {
            chosen.push(piece);
        }
        count(&mut counts, verdict.word);
        report.push_str(&line(piece, score, Some(rank + 1), &verdict));
    }
    for (piece, score) in pieces.iter().zip(&scores).filter(|(_, score)| score.error.is_some()) {
        count(&mut counts, "unreadable");
        report.push_str(&line(piece, score, None, &Verdict::of("unreadable")));
    }
    let path = beside(&job.output, "_report.jsonl");
    save(&path, report.as_bytes())?;
    if chosen.is_empty() {
        return Err(Failure::failed(format!("no piece is chosen; {} says why", path.display()))
            .hint("lower `threshold`, or raise `count` or `portion`"));
    }
    let entries = chosen.iter().map(|piece| corpus.entry(job, piece)).collect::<Result<Vec<IndexEntry>>>()?;
    save(&job.output, entries.iter().map(IndexEntry::line).collect::<String>().as_bytes())?;
    let last = ranks.iter().map(|&at| &scored[at]).find(|(piece, ..)| piece.path == chosen[chosen.len() - 1].path);
    let facts = json!({
        "chosen": chosen.len(),
        "wanted": wanted.unwrap_or(chosen.len()),
        "of": pieces.len(),
        "by": job.by,
        "best": ranks.first().map(|&at| scored[at].2),
        "last_chosen": last.map(|(.., by)| by),
        "verdicts": counts,
    });
    reporter.say(format!("{}: {}", summary(job, chosen.len(), pieces.len(), &counts), path.display()));
    if let Some(wanted) = wanted.filter(|wanted| chosen.len() < *wanted) {
        reporter.warn(format!(
            "only {} pieces are chosen of the {wanted} wanted; {} says why",
            chosen.len(),
            path.display()
        ));
    }
    Ok(Ended::Done(Outputs::new(vec![job.output.clone(), path], &facts)))
}

fn count(counts: &mut Map<String, serde_json::Value>, word: &str) {
    let so_far = counts.get(word).and_then(serde_json::Value::as_u64).unwrap_or(0);
    counts.insert(word.to_owned(), json!(so_far + 1));
}

fn summary(job: &SelectJob, chosen: usize, of: usize, counts: &Map<String, serde_json::Value>) -> String {
    let others: Vec<String> =
        counts.iter().filter(|(word, _)| *word != CHOSEN).map(|(word, count)| format!("{count} {word}")).collect();
    let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
    format!("{chosen} of {of} pieces chosen by {}{others}", job.by.word())
}

/// A line of the report.
fn line(piece: &CorpusPiece, score: &Score, rank: Option<usize>, verdict: &Verdict) -> String {
    let like = verdict.like.as_ref();
    let line = json!({
        "piece": piece.path,
        "rank": rank,
        "verdict": verdict.word,
        "log_probability": score.log_probability,
        "characters": score.characters,
        "clamp2_score": score.clamp2_score,
        "nearest_reference": score.nearest_reference,
        "similarity": score.similarity,
        "duplicate_of": like.map(|(name, _)| name),
        "bars_in_common": like.map(|(_, share)| share),
        "reason": score.error,
    });
    let fields: Map<String, serde_json::Value> = match line {
        serde_json::Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    };
    format!("{}\n", serde_json::Value::Object(fields))
}
