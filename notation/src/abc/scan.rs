//! Scans a line of music for notes, lengths and bar lines.

use super::diagnostics::LineColumn;
use super::header::{number, step};
use super::score::{BarLine, BarLineStyle};

/// The largest divisor of a length.
const LARGEST_DIVISOR: i64 = 10_000;

/// A note as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenNote {
    pub step: u8,
    pub octave: i8,
    pub accidental: Option<i8>,
    pub tie: bool,
    /// The length, in units of `L:`.
    pub length: (i64, i64),
}

/// A scanner at a place in a line.
pub(crate) struct MusicScanner<'a> {
    pub text: &'a str,
    pub at: usize,
    line: usize,
    /// What is wrong with the last length, and what was done.
    pub bad_length: Option<&'static str>,
    /// The byte of the last position, and its column. Counting from there keeps the time linear.
    known: std::cell::Cell<(usize, usize)>,
}

impl<'a> MusicScanner<'a> {
    pub fn new(text: &'a str, line: usize) -> MusicScanner<'a> {
        MusicScanner { text, at: 0, line, bad_length: None, known: std::cell::Cell::new((0, 1)) }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub fn ahead(&self, by: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + by).copied()
    }

    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips one character, and returns it.
    pub fn skip(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub fn position(&self) -> LineColumn {
        let (byte, column) = self.known.get();
        let column = if byte <= self.at {
            column + self.text[byte..self.at].chars().count()
        } else {
            column - self.text[self.at..byte].chars().count()
        };
        self.known.set((self.at, column));
        LineColumn { line: self.line, column }
    }

    /// The distance to `close`, if it comes before any of `not`.
    pub fn find(&self, close: u8, not: &[u8]) -> Option<usize> {
        let bytes = self.rest().as_bytes();
        let end = bytes.iter().position(|b| *b == close || not.contains(b))?;
        (bytes[end] == close).then_some(end)
    }

    /// Reads digits; `None` if there are none or too many.
    pub fn number(&mut self) -> Option<i64> {
        let bytes = self.rest().as_bytes();
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let number = number(&self.rest()[..digits]);
        self.at += digits;
        number
    }

    /// Reads the length of a note as a fraction: `3`, `3/2`, `/`, `//`, `/4`.
    pub fn length(&mut self) -> (i64, i64) {
        let numerator = self.factor();
        let mut slashes = 0;
        while self.eat(b'/') {
            slashes += 1;
        }
        let mut denominator = 1;
        if slashes > 0 {
            let number = self.factor().unwrap_or(2);
            if number > LARGEST_DIVISOR {
                self.bad_length = Some("a length divided by more than 10000; divided by that");
            }
            denominator = number.min(LARGEST_DIVISOR) << (slashes - 1).min(10);
        }
        (numerator.unwrap_or(1), denominator)
    }

    /// Reads a number of a length, if there is one.
    fn factor(&mut self) -> Option<i64> {
        let from = self.at;
        let number = self.number();
        match number {
            Some(0) => self.bad_length = Some("a length of 0; left out"),
            None if self.at > from => self.bad_length = Some("a length of too many digits; left out"),
            _ => {}
        }
        number.filter(|n| *n > 0)
    }

    /// Reads a note with accidental, octave, length and tie, if there is one.
    pub fn note(&mut self) -> Option<WrittenNote> {
        let from = self.at;
        let mut accidental = None;
        while let Some(sign @ (b'^' | b'_' | b'=')) = self.peek() {
            let by = match sign {
                b'^' => 1,
                b'_' => -1,
                _ => 0,
            };
            accidental = Some(if by == 0 { 0 } else { (accidental.unwrap_or(0) + by).clamp(-2, 2) });
            self.at += 1;
        }
        let letter = self.peek().filter(|letter| letter.is_ascii_alphabetic());
        let Some((letter, step)) = letter.and_then(|letter| Some((letter, step(letter)?))) else {
            self.at = from;
            return None;
        };
        self.at += 1;
        let mut octave: i8 = if letter.is_ascii_uppercase() { 4 } else { 5 };
        while let Some(mark @ (b'\'' | b',')) = self.peek() {
            octave = if mark == b'\'' { octave.saturating_add(1) } else { octave.saturating_sub(1) };
            self.at += 1;
        }
        let length = self.length();
        let dotted = self.peek() == Some(b'.') && self.ahead(1) == Some(b'-');
        self.at += usize::from(dotted);
        let tie = self.eat(b'-');
        Some(WrittenNote { step: step as u8, octave, accidental, tie, length })
    }

    /// The step, octave and accidental of a note that stands alone.
    pub fn plain_note(word: &str) -> Option<(u8, i8, Option<i8>)> {
        let note = MusicScanner::new(word, 1).note()?;
        Some((note.step, note.octave, note.accidental))
    }

    /// Reads a bar line with the number of an ending, if there is one.
    pub fn bar_line(&mut self) -> Option<BarLine> {
        let bytes = self.rest().as_bytes();
        let here = |at: usize| bytes.get(at).copied();
        let starts = match here(0)? {
            b'|' => true,
            b'.' => here(1) == Some(b'|'),
            b':' => matches!(here(1), Some(b'|' | b':' | b'[' | b']')),
            b'[' => here(1) == Some(b'|') || (here(1), here(2)) == (Some(b':'), Some(b'|')),
            _ => false,
        };
        if !starts {
            return None;
        }
        let mut line = BarLine::default();
        let mut length = usize::from(here(0) == Some(b'.'));
        let (mut bars, mut colons, mut square) = (0, 0, false);
        while let Some(byte) = here(length) {
            match byte {
                b'|' => {
                    bars += 1;
                    line.repeat_end |= colons > 0;
                    colons = 0;
                }
                b':' => colons += 1,
                b']' if length > 0 => square = true,
                b'[' if length == 0 || matches!(here(length + 1), Some(b'|' | b']')) => square = true,
                _ => break,
            }
            length += 1;
        }
        if bars == 0 && colons > 0 && !square {
            // `::`
            line.repeat_end = true;
        }
        line.repeat_start = colons > 0 && (bars > 0 || colons > 1);
        if bars == 0 && square {
            line.repeat_end |= colons > 0;
            line.repeat_start = false;
        }
        line.style = match (here(0), bars, square) {
            (Some(b'.'), 1, _) => BarLineStyle::Dotted,
            (Some(b'['), 1, true) if here(2) == Some(b']') => BarLineStyle::Invisible,
            (_, _, true) => BarLineStyle::Final,
            (_, 2.., _) => BarLineStyle::Double,
            _ => BarLineStyle::Single,
        };
        self.at += length;
        line.ending = self.ending();
        Some(line)
    }

    /// Reads an ending: `1`, `1,3`, `1-3` or, after a `[`, `"text"`, which keeps its first quotation mark.
    fn ending(&mut self) -> String {
        let mut from = self.at;
        let spaces = self.rest().bytes().take_while(|b| *b == b' ').count();
        if self.ahead(spaces) == Some(b'[') && self.ahead(spaces + 1).is_some_and(|b| b.is_ascii_digit() || b == b'"') {
            from += spaces + 1;
        }
        let rest = &self.text[from..];
        if from > self.at && rest.starts_with('"') {
            let Some(end) = rest[1..].find('"') else { return String::new() };
            self.at = from + end + 2;
            return if end == 0 { String::new() } else { rest[..=end].chars().take(40).collect() };
        }
        let length = rest.bytes().take_while(|b| b.is_ascii_digit()).count();
        if length == 0 {
            return String::new();
        }
        let mut end = length;
        while matches!(rest.as_bytes().get(end), Some(b',' | b'-'))
            && rest.as_bytes().get(end + 1).is_some_and(u8::is_ascii_digit)
        {
            end += 1 + rest.bytes().skip(end + 1).take_while(u8::is_ascii_digit).count();
        }
        self.at = from + end;
        rest[..end.min(40)].to_owned()
    }

    /// Reads an ending without a bar line: `[1`.
    pub fn lone_ending(&mut self) -> Option<String> {
        let starts = self.peek() == Some(b'[') && self.ahead(1).is_some_and(|b| b.is_ascii_digit() || b == b'"');
        if !starts {
            return None;
        }
        let before = self.at;
        let ending = self.ending();
        if ending.is_empty() {
            self.at = before;
            return None;
        }
        Some(ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> (BarLineStyle, bool, bool, String, usize) {
        let mut scan = MusicScanner::new(text, 1);
        let line = scan.bar_line().unwrap();
        (line.style, line.repeat_end, line.repeat_start, line.ending, scan.at)
    }

    #[test]
    fn bar_lines() {
        let plain = |style, end, start, at| (style, end, start, String::new(), at);
        assert_eq!(line("| A"), plain(BarLineStyle::Single, false, false, 1));
        assert_eq!(line("|]"), plain(BarLineStyle::Final, false, false, 2));
        assert_eq!(line("||"), plain(BarLineStyle::Double, false, false, 2));
        assert_eq!(line("|:A"), plain(BarLineStyle::Single, false, true, 2));
        assert_eq!(line(":|"), plain(BarLineStyle::Single, true, false, 2));
        assert_eq!(line("::A"), plain(BarLineStyle::Single, true, true, 2));
        assert_eq!(line(":|:A"), plain(BarLineStyle::Single, true, true, 3));
        assert_eq!(line(":||:A"), plain(BarLineStyle::Double, true, true, 4));
        assert_eq!(line("[|]"), plain(BarLineStyle::Invisible, false, false, 3));
        assert_eq!(line(".|A"), plain(BarLineStyle::Dotted, false, false, 2));
        assert_eq!(line(":|]"), plain(BarLineStyle::Final, true, false, 3));
        assert_eq!(line("|[V:2]"), plain(BarLineStyle::Single, false, false, 1));
        assert_eq!(line("|[ce]"), plain(BarLineStyle::Single, false, false, 1));
        assert_eq!(line("[:|A"), plain(BarLineStyle::Final, true, false, 3));
        assert_eq!(line(":|2 A").3, "2");
        assert_eq!(line("|1,3-4A"), (BarLineStyle::Single, false, false, "1,3-4".into(), 6));
        assert_eq!(line("| [1 A").3, "1");
        assert_eq!(line("|[\"Fine\" A").3, "\"Fine");
        assert_eq!(MusicScanner::new("[\"\"", 1).lone_ending(), None);
        assert!(MusicScanner::new(": A", 1).bar_line().is_none());
        assert!(MusicScanner::new("[ce]", 1).bar_line().is_none());
    }

    #[test]
    fn lengths() {
        let length = |text: &str| MusicScanner::new(text, 1).length();
        assert_eq!([length(""), length("3"), length("/"), length("//")], [(1, 1), (3, 1), (1, 2), (1, 4)]);
        assert_eq!([length("3/2"), length("/4"), length("//4"), length("0")], [(3, 2), (1, 4), (1, 8), (1, 1)]);
        assert_eq!(length("99999999999/0"), (1, 2));
    }

    #[test]
    fn columns_count_characters() {
        let mut scan = MusicScanner::new("éé|A", 3);
        scan.at = 5;
        assert_eq!(scan.position().column, 4);
        scan.at = 2;
        assert_eq!(scan.position().column, 2);
    }
}
