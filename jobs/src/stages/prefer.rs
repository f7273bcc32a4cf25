//! Chooses and rejects generated pieces: the preference data of DPO (the original's `RL/data.py`).
use std::fs;
use std::path::{Path, PathBuf};

use notation::{grouping, text};
use serde_json::ser::PrettyFormatter;
use serde_json::{Value, json};
use trainer::preference::{nearest, portion, ranking, scores};

use crate::common::failure::{Failure, Result};
use crate::common::files::save;
use crate::plan::state::Outputs;
use crate::recipe::Prefer;
use crate::stages::context::{Context, Ended};
use crate::stages::features::FeatureSet;
use crate::stages::generate::is_aligned;

/// What to choose from, and how.
pub struct PreferJob {
    pub reference: PathBuf,
    pub features: PathBuf,
    pub interleaved: PathBuf,
    pub original: PathBuf,
    /// The portion chosen, and the portion rejected.
    pub select: f64,
    pub similarity_limit: f64,
    pub output: PathBuf,
}

/// What came of it.
pub struct Choice {
    pub pieces: usize,
    /// The pieces that the portion is.
    pub wanted: usize,
    pub chosen: usize,
    pub rejected: usize,
    /// Pieces that were passed over on the way, and why: by objection.
    pub passed_over: usize,
    pub objections: [(&'static str, usize); 3],
    pub report: PathBuf,
}

pub fn run(stage: &Prefer, context: &mut Context) -> Result<Ended> {
    let job = PreferJob {
        reference: stage.reference.clone(),
        features: stage.features.clone(),
        interleaved: stage.interleaved.clone(),
        original: stage.original.clone(),
        select: stage.select.get(),
        similarity_limit: stage.similarity_limit.get(),
        output: stage.output.clone(),
    };
    let choice = choose(&job)?;
    context.reporter.say(choice.summary());
    if let Some(warning) = choice.warning() {
        context.reporter.warn(warning);
    }
    let facts = choice.facts();
    Ok(Ended::Done(Outputs::new(vec![job.output, choice.report], &facts)))
}

impl Choice {
    pub fn summary(&self) -> String {
        let why: Vec<String> = self
            .objections
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
        format!(
            "{} of {} pieces chosen, {} rejected; {} passed over{why}: {}",
            self.chosen,
            self.pieces,
            self.rejected,
            self.passed_over,
            self.report.display()
        )
    }

    /// The chosen fall short of their portion.
    pub fn warning(&self) -> Option<String> {
        (self.chosen < self.wanted).then(|| {
            format!(
                "only {} pieces pass the checks of the {} wanted; {} says why",
                self.chosen,
                self.wanted,
                self.report.display()
            )
        })
    }

    pub fn facts(&self) -> Value {
        let objections: serde_json::Map<String, Value> =
            self.objections.iter().map(|(why, count)| ((*why).to_owned(), json!(count))).collect();
        json!({
            "chosen": self.chosen,
            "rejected": self.rejected,
            "wanted": self.wanted,
            "of": self.pieces,
            "passed_over": self.passed_over,
            "objections": objections,
        })
    }
}

/// Ranks the pieces by score, takes the best that pass the checks and the worst, and writes both down with a report.
///
/// Pieces of one score rank by name; the original takes them as the file system lists them.
pub fn choose(job: &PreferJob) -> Result<Choice> {
    let (reference, generated) = (FeatureSet::read(&job.reference)?, FeatureSet::read(&job.features)?);
    let scores = scores(&reference.features, &generated.features)?;
    let nearest = nearest(&reference.features, &generated.features)?;
    let pieces = generated.names.len();
    let wanted = portion(pieces, job.select);
    if wanted == 0 {
        return Err(Failure::failed(format!("{} of {pieces} pieces is none: nothing to choose", job.select))
            .hint("generate more pieces, or raise `select`"));
    }
    let ranking = ranking(&scores);
    let mut choice = Choice {
        pieces,
        wanted,
        chosen: 0,
        rejected: wanted,
        passed_over: 0,
        objections: [("not aligned", 0), ("staves not grouped", 0), (LIKE, 0)],
        report: report_path(&job.output),
    };
    let mut report = String::new();
    let mut chosen = Vec::new();
    for (rank, &piece) in ranking.iter().enumerate() {
        let name = &generated.names[piece];
        let (like, similarity) = nearest[piece];
        let looked_at = chosen.len() < wanted;
        let mut reasons = Vec::new();
        if looked_at {
            let piece = read(&abc(&job.interleaved, name))?;
            let grouped = grouping::is_grouped(&text::lines(&piece));
            let objections = [!is_aligned(&piece), !grouped, similarity > job.similarity_limit];
            for ((why, count), _) in choice.objections.iter_mut().zip(objections).filter(|(_, objects)| *objects) {
                *count += 1;
                reasons.push(*why);
            }
            if reasons.is_empty() {
                chosen.push(abc(&job.original, name));
            } else {
                choice.passed_over += 1;
            }
        }
        let rejected = rank >= pieces - wanted;
        let verdict = match (looked_at, reasons.is_empty(), rejected) {
            (true, true, true) => "chosen and rejected",
            (true, true, false) => "chosen",
            (_, _, true) => "rejected",
            (true, false, false) => "passed over",
            (false, ..) => "between",
        };
        let line = json!({
            "piece": name,
            "rank": rank + 1,
            "score": scores[piece],
            "verdict": verdict,
            "reasons": reasons,
            "nearest_reference": reference.names[like],
            "similarity": similarity,
        });
        report.push_str(&format!("{line}\n"));
    }
    choice.chosen = chosen.len();
    let rejected: Vec<PathBuf> =
        ranking[pieces - wanted..].iter().map(|&piece| abc(&job.original, &generated.names[piece])).collect();
    save(&choice.report, report)?;
    if choice.chosen == 0 {
        let most = choice.objections.iter().max_by_key(|(_, count)| count);
        let hint = match most {
            Some((LIKE, _)) => "similarity_limit says how like a reference a piece may be",
            _ => "train the model longer, sample at a lower temperature, or generate more pieces",
        };
        return Err(
            Failure::failed(format!("no piece passes the checks; {} says why", choice.report.display())).hint(hint)
        );
    }
    save(&job.output, preferences(&chosen, &rejected)?)?;
    Ok(choice)
}

const LIKE: &str = "too like a reference";

/// The original's file: `json.dump(…, indent=4)`.
fn preferences(chosen: &[PathBuf], rejected: &[PathBuf]) -> Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Preferences<'a> {
        chosen: &'a [PathBuf],
        rejected: &'a [PathBuf],
    }
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    serde::Serialize::serialize(&Preferences { chosen, rejected }, &mut writer)
        .map_err(|error| Failure::failed(format!("the preferences cannot be written: {error}")))?;
    Ok(bytes)
}

fn report_path(output: &Path) -> PathBuf {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!("{stem}_report.jsonl"))
}

fn abc(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.abc"))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        Failure::io("read", path, error).hint("every feature needs its piece: the folders go together")
    })
}
