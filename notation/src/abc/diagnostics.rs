//! Warnings about a piece.

use std::fmt;

use serde::Serialize;

/// Warnings kept for one piece; the others are counted.
const MOST: usize = 500;

/// Something wrong with a piece that could be read all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AbcWarning {
    /// The name of the file that the caller gave.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The voice, such as `V:2`; empty outside the music.
    pub voice: String,
    /// The bar of the voice, counted from 1; 0 outside the music.
    pub bar: usize,
    /// What is wrong, and what was done.
    pub problem: String,
}

impl fmt::Display for AbcWarning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if self.bar > 0 {
            write!(f, "voice {}, bar {}: ", self.voice, self.bar)?;
        }
        f.write_str(&self.problem)
    }
}

/// A place in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineColumn {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

/// Collects the warnings of a piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnostics {
    pub file: String,
    pub warnings: Vec<AbcWarning>,
    left_out: usize,
}

impl Diagnostics {
    pub fn new(file: &str) -> Diagnostics {
        Diagnostics { file: file.to_owned(), ..Diagnostics::default() }
    }

    /// `bar` is counted from 1; 0 outside the music.
    pub fn add(&mut self, at: LineColumn, voice: &str, bar: usize, problem: impl Into<String>) {
        if self.warnings.len() < MOST {
            let voice = if voice.is_empty() { String::new() } else { format!("V:{voice}") };
            let (file, problem) = (self.file.clone(), problem.into());
            self.warnings.push(AbcWarning { file, line: at.line, column: at.column, voice, bar, problem });
        } else {
            self.left_out += 1;
        }
    }

    /// All warnings, in the order of the text.
    pub fn finish(mut self) -> Vec<AbcWarning> {
        self.warnings.sort_by_key(|warning| (warning.line, warning.column));
        if self.left_out > 0 {
            let problem = format!("{} more warnings are left out", self.left_out);
            let (line, column) = self.warnings.last().map_or((1, 1), |last| (last.line, last.column));
            self.warnings.push(AbcWarning { file: self.file, line, column, voice: String::new(), bar: 0, problem });
        }
        self.warnings
    }
}
