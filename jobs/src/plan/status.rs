//! How a stage stands, compared with what was done before.
use std::fs;

use super::fingerprint::Fingerprint;
use super::state::{Outputs, Record, RecordStatus};
use crate::recipe::Stage;

/// How a stage stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageStatus {
    /// Its results are there and are those of these settings and inputs.
    Done,
    /// It was begun with these settings and inputs, and goes on from its last checkpoint.
    Unfinished,
    /// It was run with other settings or inputs.
    Stale(Vec<String>),
    ToDo,
}

impl StageStatus {
    pub fn word(&self) -> &'static str {
        match self {
            StageStatus::Done => "done",
            StageStatus::Unfinished => "unfinished",
            StageStatus::Stale(_) => "stale",
            StageStatus::ToDo => "to do",
        }
    }

    /// What will be done about it.
    pub fn reason(&self) -> String {
        match self {
            StageStatus::Done => "settings and inputs are as they were".to_owned(),
            StageStatus::Unfinished => "goes on from its last checkpoint".to_owned(),
            StageStatus::Stale(reasons) => reasons.join("; "),
            StageStatus::ToDo => "never run".to_owned(),
        }
    }
}

/// How a stage with this fingerprint stands.
pub(super) fn of(stage: &Stage, selected: bool, fingerprint: &Fingerprint, record: Option<&Record>) -> StageStatus {
    let Some(record) = record else { return StageStatus::ToDo };
    if !selected {
        return match record.status {
            RecordStatus::Done => StageStatus::Done,
            _ => StageStatus::Unfinished,
        };
    }
    let mut reasons = fingerprint.changes_since(&record.fingerprint);
    if record.status == RecordStatus::Done {
        for file in record.result.files.iter().filter(|file| !file.exists()) {
            reasons.push(format!("its output {} is missing", file.display()));
        }
        if matches!(stage, Stage::Generate(_)) {
            reasons.extend(lost(&record.result));
        }
    }
    match (reasons.is_empty(), record.status) {
        (true, RecordStatus::Done) => StageStatus::Done,
        (true, _) => StageStatus::Unfinished,
        (false, _) => StageStatus::Stale(reasons),
    }
}

/// Why pieces that were all written are not all there any more.
fn lost(result: &Outputs) -> Option<String> {
    let written = result.facts.get("pieces")?.as_u64()?;
    let folder = result.files.iter().find(|folder| folder.ends_with("original"))?;
    let is_piece = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|end| end == "abc");
    let there = fs::read_dir(folder).ok()?.flatten().filter(is_piece).count() as u64;
    (there < written).then(|| format!("{} of its {written} pieces are missing", written - there))
}
