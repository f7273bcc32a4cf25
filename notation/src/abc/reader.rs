//! Reads a piece line by line: a line holds a field, a directive or music.

use super::diagnostics::LineColumn;
use super::fields::AbcReader;
use super::score::AbcScore;
use super::{layout, repair};
use crate::{Error, Result};

pub(crate) fn read(text: &str, file: &str) -> Result<AbcScore> {
    let mut reader = AbcReader::new(text, file);
    let lines = text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    for (number, line) in lines.enumerate() {
        if !reader.line(line, number + 1)? {
            break;
        }
    }
    reader.finish()
}

impl AbcReader {
    /// Reads a line; returns whether the piece continues.
    fn line(&mut self, line: &str, number: usize) -> Result<bool> {
        let text = line.trim();
        if text.is_empty() {
            return Ok(true);
        }
        self.last_line = number;
        let at = LineColumn { line: number, column: 1 + line.chars().take_while(|c| c.is_whitespace()).count() };
        if let Some((mut field, start)) = self.unfinished.take() {
            let goes_on = !text.starts_with("V:") && !text.starts_with("%%") && !text.contains("[V:");
            if goes_on && field.len() < 500 {
                field.extend([" ", text]);
                if text.contains('"') {
                    self.select(&field, start);
                } else {
                    self.unfinished = Some((field, start));
                }
                return Ok(true);
            }
            self.select(&field, start);
        }
        if let Some(directive) = text.strip_prefix("%%") {
            self.directive(directive, at);
            return Ok(true);
        }
        if text.starts_with('%') || text.starts_with("+:") {
            return Ok(true);
        }
        let bytes = text.as_bytes();
        if bytes.len() > 1 && bytes[1] == b':' && bytes[0].is_ascii_alphabetic() && self.is_field(bytes) {
            if bytes[0] == b'X' && self.started {
                self.diagnostics.add(at, "", 0, "another piece begins; only the first is read");
                return Ok(false);
            }
            // In text fields `%` begins no comment.
            let value = if matches!(bytes[0], b'T' | b'C' | b'w') { &text[2..] } else { uncommented(&text[2..]) };
            if bytes[0] == b'V' && !self.started && value.matches('"').count() % 2 == 1 {
                self.abc = true;
                self.unfinished = Some((value.to_owned(), at));
            } else {
                self.field(bytes[0], value.trim(), at);
            }
            return Ok(true);
        }
        self.music(uncommented(line), number)?;
        Ok(true)
    }

    /// Whether `letter:` begins a field, and is not a note before a repeat.
    fn is_field(&self, bytes: &[u8]) -> bool {
        let repeat = matches!(bytes.get(2), Some(b'|' | b':'));
        if self.started { b"KLMQVPIwWTXNrRUmsZSHOFDB".contains(&bytes[0]) && !repeat } else { !repeat }
    }

    fn finish(mut self) -> Result<AbcScore> {
        if let Some((field, at)) = self.unfinished.take() {
            self.select(&field, at);
        }
        if !self.abc {
            return Err(Error::NotAbc { file: self.diagnostics.file.clone() });
        }
        let at = LineColumn { line: self.last_line.max(1), column: 1 };
        for voice in &mut self.voices {
            voice.end(at, &mut self.diagnostics);
        }
        let bars = self.longest(at.line)?;
        if bars == 0 {
            return Err(Error::NoNotes { file: self.diagnostics.file.clone(), line: at.line });
        }
        let silent = self.interleaved && self.reduced;
        for (at, voice, bar) in self.uneven.iter().filter(|_| silent) {
            self.diagnostics.add(*at, &self.voices[*voice].voice.id, *bar, "missing; filled with a rest");
        }
        let mut voices = Vec::new();
        for mut voice in self.voices {
            voice.fill(bars, at);
            voices.push(voice.finish(&mut self.diagnostics));
        }
        let layout_line = self.layout.as_ref().map(|(text, at)| (text.as_str(), *at));
        let (layout, parts) = layout::layout(layout_line, &voices, &mut self.diagnostics);
        let mut hidden = vec![false; voices.len()];
        for place in parts.iter().flat_map(|part| &part.staves).flat_map(|staff| staff.iter().skip(1)) {
            hidden[*place] = true;
        }
        let lengths = repair::lengths(&mut voices, &hidden, silent, &mut self.diagnostics);
        let bar_lines = repair::bar_lines(&voices, &mut self.diagnostics);
        Ok(AbcScore {
            titles: self.titles,
            composer: self.composers.join("\n"),
            voices,
            layout,
            parts,
            tempo: self.tempo,
            lengths,
            bar_lines,
            warnings: self.diagnostics.finish(),
        })
    }
}

/// The line without its comment. A `%` in quotes begins no comment if the quotes are closed.
fn uncommented(line: &str) -> &str {
    let mut from = 0;
    let bytes = line.as_bytes();
    while let Some(at) = bytes[from..].iter().position(|b| matches!(b, b'%' | b'"')).map(|at| from + at) {
        if bytes[at] == b'%' {
            if at > 0 && bytes[at - 1] == b'\\' {
                from = at + 1;
                continue;
            }
            return &line[..at];
        }
        match bytes[at + 1..].iter().position(|b| *b == b'"') {
            Some(close) => from = at + 1 + close + 1,
            None => {
                // The quotes are not closed, so `%` begins a comment.
                let end = bytes[at..].iter().position(|b| *b == b'%').map_or(line.len(), |end| at + end);
                return &line[..end];
            }
        }
    }
    line
}
