//! Reads lines of music: notes, bar lines, decorations, fields in brackets.

use super::diagnostics::{Diagnostics, LineColumn};
use super::fields::AbcReader;
use super::scan::{MusicScanner, WrittenNote};
use super::score::{AbcMark, BarLine, BarLineStyle};
use super::voice::{VoiceReader, WrittenChord};
use crate::Result;

/// Whether a decoration belongs to a moment, and not to a note.
fn is_mark(name: &str) -> bool {
    const MARKS: &str = "p pp ppp pppp f ff fff ffff mp mf sfz sf fp rf rfz >( >) <( <) crescendo( crescendo) diminuendo( \
        diminuendo) 8va( 8va) 8vb( 8vb) ped ped-up coda segno fine D.S. D.C. dacapo dacoda";
    MARKS.split(' ').any(|mark| mark == name)
}

/// Bars that `Z` may add to a piece.
const MOST_RESTS: i64 = 10_000;

impl AbcReader {
    pub fn music(&mut self, text: &str, number: usize) -> Result<()> {
        let mut scan = MusicScanner::new(text, number);
        let system = self.interleaved && text.contains("[V:");
        if !self.started {
            self.started = true;
            if system && self.voices.is_empty() {
                let problem = "the header has no `V:` lines; voices are taken as they come";
                self.diagnostics.add(scan.position(), "", 0, problem);
            }
        }
        if system {
            self.current = None;
        } else if let Some(voice) = self.reading() {
            voice.music_line();
        }
        while let Some(byte) = scan.peek() {
            if self.inline_field(&mut scan) {
                continue;
            }
            if self.ignored {
                scan.skip();
                continue;
            }
            let place = match self.current {
                Some(place) => place,
                None if byte.is_ascii_whitespace() => {
                    scan.skip();
                    continue;
                }
                None => {
                    self.select("1", scan.position());
                    continue;
                }
            };
            let before = scan.at;
            let at = scan.position();
            self.element(&mut scan, place, byte);
            if let Some(problem) = scan.bad_length.take() {
                self.warn(at, problem);
            }
            if scan.at == before {
                // Guards against an endless loop.
                scan.skip();
            }
        }
        if system {
            self.end_segment(&scan);
            self.current = None;
            self.level(LineColumn { line: number, column: 1 });
        }
        self.longest(number).map(|_| ())
    }

    /// Reads a field in brackets, such as `[K:…]`; `false` if there is none.
    fn inline_field(&mut self, scan: &mut MusicScanner) -> bool {
        let letter = match (scan.peek(), scan.ahead(1), scan.ahead(2)) {
            (Some(b'['), Some(letter), Some(b':')) if letter.is_ascii_alphabetic() => letter,
            _ => return false,
        };
        // `[A:|` would be a chord that is not closed.
        if matches!(scan.ahead(3), Some(b'|' | b':')) {
            return false;
        }
        let at = scan.position();
        let rest = &scan.rest().as_bytes()[1..];
        let end = rest.iter().position(|b| matches!(b, b']' | b'[')).unwrap_or(rest.len());
        let closed = scan.ahead(1 + end) == Some(b']');
        if letter == b'V' {
            self.inline_voice(scan, end, closed, at);
            return true;
        }
        if !closed {
            self.warn(at, "a field in brackets that is not closed; left out");
            scan.at += 3;
            return true;
        }
        let value = scan.rest()[3..=end].trim().to_owned();
        scan.at += end + 2;
        if letter != b'r' {
            self.field(letter, &value, at);
        }
        true
    }

    /// Reads `[V:…]`. Its content ends after `end` bytes, with a bracket if it is `closed`.
    fn inline_voice(&mut self, scan: &mut MusicScanner, end: usize, closed: bool, at: LineColumn) {
        if self.interleaved {
            self.end_segment(scan);
        }
        let value = scan.rest()[3..=end].trim().to_owned();
        let id = value.split_whitespace().next().unwrap_or_default();
        self.abc = true;
        let digits = id.bytes().take_while(u8::is_ascii_digit).count();
        if !closed && digits == 0 {
            self.warn(at, "a field in brackets that is not closed; left out");
            scan.at += 3;
            return;
        }
        let known = self.voice_indices.contains_key(id);
        if !closed || (!known && self.voice_indices.contains_key(&id[..digits])) {
            // `[V:3A2 B2|` and `[V:3é]`
            let id = id[..digits].to_owned();
            scan.at += if closed { end + 2 } else { 3 + digits };
            self.select_in_line(&id, at);
            self.warn(at, format!("[V:{value} is read as [V:{id}]"));
        } else {
            scan.at += end + 2;
            self.select_in_line(&value, at);
            if !known && !id.is_empty() && !self.ignored {
                self.warn(at, format!("voice V:{id} is not in the header"));
            }
        }
    }

    fn select_in_line(&mut self, value: &str, at: LineColumn) {
        self.select(value, at);
        let bars = self.bars;
        if let Some(voice) = self.reading() {
            // The voice may have been missing in earlier lines.
            voice.fill(bars, at);
            voice.start_segment();
        }
    }

    /// Ends the text of a voice in a line of interleaved ABC.
    fn end_segment(&mut self, scan: &MusicScanner) {
        let Some(place) = self.current else { return };
        let voice = &mut self.voices[place];
        voice.end(scan.position(), &mut self.diagnostics);
        self.reduced &= voice.sounded;
    }

    /// Ends a line of interleaved ABC: adds bars until all voices have as many as the longest.
    fn level(&mut self, at: LineColumn) {
        let bars = self.voices.iter().map(|voice| voice.voice.bars.len()).max().unwrap_or(0);
        for (place, voice) in self.voices.iter_mut().enumerate() {
            let own = voice.voice.bars.len();
            if own > self.bars {
                self.uneven.extend((own..bars).map(|bar| (at, place, bar + 1)));
            }
            voice.fill(bars, at);
        }
        self.bars = bars;
    }

    fn element(&mut self, scan: &mut MusicScanner, place: usize, byte: u8) {
        let at = scan.position();
        if let Some(line) = scan.bar_line() {
            let closes = self.interleaved && self.voices[place].empty_segment(scan);
            self.voices[place].bar_line(line, closes, at);
            return;
        }
        if let Some(ending) = scan.lone_ending() {
            let line = BarLine { ending, style: BarLineStyle::Single, ..Default::default() };
            self.voices[place].bar_line(line, false, at);
            return;
        }
        let voice = &mut self.voices[place];
        let diagnostics = &mut self.diagnostics;
        match byte {
            b' ' | b'\t' => {
                voice.space = true;
                scan.at += 1;
            }
            b'\\' | b'`' | b'$' | b'y' => {
                scan.at += 1;
                if byte == b'y' {
                    scan.length();
                }
            }
            b'(' => {
                scan.at += 1;
                if scan.peek().is_some_and(|b| b.is_ascii_digit()) {
                    tuplet(scan, voice, at, diagnostics);
                } else {
                    if matches!(scan.peek(), Some(b',' | b'\'')) {
                        scan.at += 1;
                    }
                    voice.slur_start(false);
                }
            }
            b'.' if scan.ahead(1) == Some(b'(') && !scan.ahead(2).is_some_and(|b| b.is_ascii_digit()) => {
                scan.at += 2;
                voice.slur_start(true);
            }
            b'.' if scan.ahead(1) == Some(b')') || scan.ahead(1) == Some(b'-') => scan.at += 1,
            b'.' => {
                scan.at += 1;
                voice.decoration(".");
            }
            b')' => {
                scan.at += 1;
                voice.slur_stop(at, diagnostics);
            }
            b'-' => {
                scan.at += 1;
                voice.tie(at, diagnostics);
            }
            b'>' | b'<' => {
                scan.at += 1;
                voice.broken(if byte == b'>' { 1 } else { -1 }, at, diagnostics);
            }
            b'&' => {
                while scan.eat(b'&') {}
                voice.overlay(at, diagnostics);
            }
            b'"' => text(scan, voice, at, diagnostics),
            b'!' | b'+' => self.decoration(scan, place, at),
            b'{' => self.grace(scan, place, at),
            b'[' => self.chord(scan, place, at),
            b'z' | b'x' => {
                scan.at += 1;
                let length = scan.length();
                let chord = WrittenChord { length, invisible: byte == b'x', ..WrittenChord::default() };
                voice.chord(chord, at, diagnostics);
            }
            b'Z' | b'X' => {
                scan.at += 1;
                self.whole_bars(scan, place, byte == b'X', at);
            }
            _ => {
                if let Some(note) = scan.note() {
                    let (length, tie) = (note.length, note.tie);
                    let note = WrittenNote { length: (1, 1), tie, ..note };
                    voice.chord(WrittenChord { notes: vec![note], length, ..WrittenChord::default() }, at, diagnostics);
                } else if let Some(name) = self.symbols.get(&byte) {
                    scan.at += 1;
                    if is_mark(name) {
                        voice.mark(AbcMark::Decoration(name.clone()), at);
                    } else {
                        voice.decoration(name);
                    }
                } else {
                    let c = scan.skip().unwrap_or(' ');
                    voice.warn(at, &format!("{c:?} is no music; left out"), diagnostics);
                }
            }
        }
    }

    fn decoration(&mut self, scan: &mut MusicScanner, place: usize, at: LineColumn) {
        let sign = scan.peek().unwrap_or(b'!');
        scan.at += 1;
        let rest = scan.rest();
        let voice = &mut self.voices[place];
        let name = match scan.find(sign, b" \"") {
            Some(end) if end > 0 && end <= 40 => {
                scan.at += end + 1;
                &rest[..end]
            }
            _ if sign == b'+' => return voice.warn(at, "'+' is no music; left out", &mut self.diagnostics),
            _ => {
                // `!f A`: the second `!` is missing.
                let end = rest.find([' ', '|', '[', '"', '!']).unwrap_or(rest.len());
                voice.warn(at, "a decoration that is not closed", &mut self.diagnostics);
                if !is_mark(&rest[..end]) && rest.get(..end) != Some("fermata") {
                    return;
                }
                scan.at += end;
                &rest[..end]
            }
        };
        if is_mark(name) {
            voice.mark(AbcMark::Decoration(name.to_owned()), at);
        } else {
            voice.decoration(name);
        }
    }

    fn whole_bars(&mut self, scan: &mut MusicScanner, place: usize, invisible: bool, at: LineColumn) {
        let mut bars = scan.number().filter(|bars| *bars > 0).unwrap_or(1);
        self.rests += bars - 1;
        if self.rests > MOST_RESTS {
            bars = 1;
            self.voices[place].warn(at, "too many bars of rest; written as one", &mut self.diagnostics);
        }
        let voice = &mut self.voices[place];
        for bar in 0..bars {
            if bar > 0 {
                voice.bar_line(Default::default(), false, at);
            }
            let chord = WrittenChord { length: (1, 1), invisible, whole_bar: true, ..WrittenChord::default() };
            voice.chord(chord, at, &mut self.diagnostics);
        }
    }

    fn grace(&mut self, scan: &mut MusicScanner, place: usize, at: LineColumn) {
        let voice = &mut self.voices[place];
        scan.at += 1;
        let Some(end) = scan.find(b'}', b"{|") else {
            return voice.warn(at, "grace notes that are not closed; read as notes", &mut self.diagnostics);
        };
        let end = scan.at + end;
        let (chords, slash) = grace_notes(scan, end, voice, &mut self.diagnostics);
        voice.grace(chords, slash, at);
    }

    fn chord(&mut self, scan: &mut MusicScanner, place: usize, at: LineColumn) {
        let voice = &mut self.voices[place];
        scan.at += 1;
        let Some(end) = scan.find(b']', b"[|") else {
            return voice.warn(at, "a chord that is not closed; read as notes", &mut self.diagnostics);
        };
        let end = scan.at + end;
        let mut chord = WrittenChord { length: (1, 1), ..WrittenChord::default() };
        let mut rest = None;
        while scan.at < end {
            let here = scan.position();
            match scan.peek() {
                Some(b'z' | b'x' | b'Z' | b'X') => {
                    let sign = scan.skip();
                    rest = Some((sign == Some('x'), scan.length()));
                }
                Some(b'!') => self.decoration(scan, place, here),
                Some(b'"') => text(scan, &mut self.voices[place], here, &mut self.diagnostics),
                Some(b'{') => {
                    scan.at += 1;
                    if let Some(close) = scan.find(b'}', b"{]") {
                        let close = scan.at + close;
                        let voice = &mut self.voices[place];
                        let (chords, slash) = grace_notes(scan, close, voice, &mut self.diagnostics);
                        voice.grace(chords, slash, here);
                    }
                }
                Some(b'(') if !scan.ahead(1).is_some_and(|b| b.is_ascii_digit()) => {
                    scan.at += 1;
                    self.voices[place].slur_start(false);
                }
                Some(b'.' | b' ' | b',' | b'\'' | b'<' | b'>' | b'#' | b'-' | b')') => scan.at += 1,
                Some(byte) => {
                    if let Some(note) = scan.note() {
                        chord.notes.push(note);
                    } else if let Some(name) = self.symbols.get(&byte) {
                        scan.at += 1;
                        self.voices[place].decoration(name);
                    } else {
                        let c = scan.skip().unwrap_or(' ');
                        let problem = format!("{c:?} in a chord; left out");
                        self.voices[place].warn(here, &problem, &mut self.diagnostics);
                    }
                }
                None => break,
            }
        }
        scan.at = scan.at.max(end);
        scan.eat(b']');
        chord.length = scan.length();
        let dotted = scan.peek() == Some(b'.') && scan.ahead(1) == Some(b'-');
        scan.at += usize::from(dotted);
        if scan.eat(b'-') {
            chord.notes.iter_mut().for_each(|note| note.tie = true);
        }
        let voice = &mut self.voices[place];
        match (chord.notes.is_empty(), rest) {
            (false, _) => voice.chord(chord, at, &mut self.diagnostics),
            (true, Some((invisible, (n, d)))) => {
                let length = (n * chord.length.0, d * chord.length.1);
                let rest = WrittenChord { length, invisible, ..WrittenChord::default() };
                voice.chord(rest, at, &mut self.diagnostics);
            }
            (true, None) => voice.warn(at, "a chord without notes; left out", &mut self.diagnostics),
        }
    }
}

fn tuplet(scan: &mut MusicScanner, voice: &mut VoiceReader, at: LineColumn, diagnostics: &mut Diagnostics) {
    let actual = scan.number();
    let mut number = || {
        let colon = scan.peek() == Some(b':') && scan.ahead(1).is_some_and(|b| b.is_ascii_digit() || b == b':');
        scan.at += usize::from(colon);
        if colon { scan.number().filter(|n| *n > 0) } else { None }
    };
    let (normal, notes) = (number(), number());
    let Some(actual) = actual.filter(|n| *n > 0) else {
        return voice.warn(at, "a tuplet of no notes; left out", diagnostics);
    };
    let normal = normal.unwrap_or(if matches!(actual, 2 | 4 | 8) { 3 } else { 2 });
    let notes = notes.unwrap_or(actual);
    match (u32::try_from(actual), u32::try_from(normal), u32::try_from(notes)) {
        (Ok(actual @ 1..=64), Ok(normal @ 1..=64), Ok(notes)) => voice.tuplet(actual, normal, notes),
        _ => voice.warn(at, "a tuplet of too many notes; left out", diagnostics),
    }
}

/// Reads `"…"`: words, or a chord symbol.
fn text(scan: &mut MusicScanner, voice: &mut VoiceReader, at: LineColumn, diagnostics: &mut Diagnostics) {
    scan.at += 1;
    let rest = scan.rest();
    let Some(end) = rest.find('"') else {
        // Its end is unknown: reading continues at the bar line.
        scan.at += rest.find(['|', '[']).unwrap_or(rest.len());
        return voice.warn(at, "a text that is not closed; left out up to the bar line", diagnostics);
    };
    scan.at += end + 1;
    let text = &rest[..end];
    let mark = match text.as_bytes().first() {
        None => return,
        Some(b'^') => AbcMark::Text(text[1..].to_owned(), true),
        Some(b'_' | b'<' | b'>' | b'@') => AbcMark::Text(text[1..].to_owned(), false),
        Some(b'A'..=b'G') => AbcMark::Harmony(text.to_owned()),
        Some(_) => AbcMark::Text(text.to_owned(), true),
    };
    voice.mark(mark, at);
}

/// Reads the grace notes up to `end`, where a `}` is. Returns them, and whether they are struck through.
fn grace_notes(
    scan: &mut MusicScanner,
    end: usize,
    voice: &mut VoiceReader,
    diagnostics: &mut Diagnostics,
) -> (Vec<WrittenChord>, bool) {
    let slash = scan.eat(b'/');
    let mut chords = Vec::new();
    let mut open: Option<WrittenChord> = None;
    while scan.at < end {
        let here = scan.position();
        match scan.peek() {
            Some(b'[') => {
                scan.at += 1;
                open = Some(WrittenChord { length: (1, 1), ..WrittenChord::default() });
            }
            Some(b']') => {
                scan.at += 1;
                let length = scan.length();
                if let Some(mut chord) = open.take() {
                    let own = chord.notes.first().map_or((1, 1), |note| note.length);
                    chord.length = (length.0 * own.0, length.1 * own.1);
                    chords.push(chord);
                }
            }
            Some(b' ' | b'-' | b'(' | b')' | b'.' | b'z' | b'x' | b'<' | b'>' | b'/' | b'0'..=b'9') => scan.at += 1,
            Some(b'!') => {
                let rest = scan.rest();
                scan.at +=
                    rest[1..].find(['!', '}']).map_or(1, |end| end + 1 + usize::from(rest.as_bytes()[end + 1] == b'!'));
            }
            Some(_) => match (scan.note(), &mut open) {
                (Some(note), Some(chord)) => chord.notes.push(note),
                (Some(note), None) => {
                    let length = note.length;
                    chords.push(WrittenChord { notes: vec![note], length, ..WrittenChord::default() });
                }
                (None, _) => {
                    let c = scan.skip().unwrap_or(' ');
                    if !c.is_ascii_alphabetic() {
                        voice.warn(here, &format!("{c:?} in grace notes; left out"), diagnostics);
                    }
                }
            },
            None => break,
        }
    }
    scan.at = scan.at.max(end);
    scan.eat(b'}');
    (chords, slash)
}
