//! The report of a run, a line a piece: what became of it, and what a later run knows it by.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::options::Keys;
use crate::{Error, Result};

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceReport {
    /// The file's name without its end.
    pub name: String,
    /// The keys it was to be written in.
    #[serde(default)]
    pub keys: Keys,
    /// The original key as the header has it; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Voices; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voices: Option<usize>,
    /// Bars; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bars: Option<usize>,
    /// Its prompt, where the table has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The piece that has the same text in the packed corpus; this one is in no index then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
    /// Why it was refused: the file and what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What was odd about it and was repaired or left out; of many the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Of the input.
    pub sha256: String,
    /// Of this crate's conversion.
    pub version: u32,
}

impl PieceReport {
    /// Whether it is in the indexes.
    pub fn is_listed(&self) -> bool {
        self.key.is_some() && self.duplicate_of.is_none()
    }
}

/// The report of an earlier run, as far as it can be read.
pub(super) fn known(report: &Path) -> HashMap<String, PieceReport> {
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
