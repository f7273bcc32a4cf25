//! The report of a run: a line of JSON for each piece, with its result and what a later run needs to recognise it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::options::Keys;
use crate::{Error, Result};

/// The result of one piece, a line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceReport {
    /// The file's name without its extension.
    pub name: String,
    /// The requested keys.
    #[serde(default)]
    pub keys: Keys,
    /// The original key as in the header; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The number of voices; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voices: Option<usize>,
    /// The number of bars; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bars: Option<usize>,
    /// The prompt, if the table has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// An earlier piece of the packed corpus with the same text; this one is in no index then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
    /// Why the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What was odd, and was repaired or left out: the first warnings, and how many more there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The SHA-256 of the input.
    pub sha256: String,
    /// The version of the conversion.
    pub version: u32,
}

impl PieceReport {
    /// Whether the piece is in the index files.
    pub fn is_listed(&self) -> bool {
        self.key.is_some() && self.duplicate_of.is_none()
    }
}

/// Reads the report of an earlier run. Lines that cannot be read are ignored.
pub(super) fn read(report: &Path) -> HashMap<String, PieceReport> {
    let text = fs::read_to_string(report).unwrap_or_default();
    let pieces = text.lines().filter_map(|line| serde_json::from_str::<PieceReport>(line).ok());
    pieces.map(|piece| (piece.name.clone(), piece)).collect()
}

pub(super) fn append(journal: &Mutex<File>, piece: &PieceReport) -> std::io::Result<()> {
    let mut line = serde_json::to_string(piece)?;
    line.push('\n');
    let mut journal = journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    journal.write_all(line.as_bytes())
}

pub(super) fn write<'a>(path: &Path, pieces: impl Iterator<Item = &'a PieceReport>) -> Result<()> {
    let mut pieces: Vec<&PieceReport> = pieces.collect();
    pieces.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::new();
    for piece in pieces {
        text.push_str(&serde_json::to_string(piece).map_err(|error| Error::io(path)(error.into()))?);
        text.push('\n');
    }
    crate::files::write(path, text.as_bytes())
}
