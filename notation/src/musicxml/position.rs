//! Where in a score something is.

use std::fmt;

/// A place in a MusicXML file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePosition {
    /// The line, counted from 1; 0 if it is not known.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The part's `id`.
    pub part: Option<String>,
    /// The measure's number as printed.
    pub measure: Option<String>,
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut comma = "";
        if self.line > 0 {
            write!(f, "line {}, column {}", self.line, self.column)?;
            comma = ", ";
        }
        for (name, value) in [("part", &self.part), ("measure", &self.measure)] {
            if let Some(value) = value {
                write!(f, "{comma}{name} {value}")?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// Counts lines and columns on the way through a text.
pub(super) struct LineCounter<'a> {
    text: &'a str,
    /// The byte up to which lines and columns are counted.
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> LineCounter<'a> {
    pub(super) fn new(text: &'a str) -> LineCounter<'a> {
        LineCounter { text, at: 0, line: 1, column: 1 }
    }

    /// The position of a byte. Bytes come in ascending order.
    pub(super) fn position(&mut self, at: usize) -> SourcePosition {
        let between = self.text.get(self.at..at).unwrap_or_default();
        match between.rsplit_once('\n') {
            Some((before, line)) => {
                self.line += 1 + memchr::memchr_iter(b'\n', before.as_bytes()).count();
                self.column = 1 + line.chars().count();
            }
            None => self.column += between.chars().count(),
        }
        self.at = self.at.max(at);
        SourcePosition { line: self.line, column: self.column, ..SourcePosition::default() }
    }
}
