//! The lines of a piece: fields and directives.

mod music;

use std::collections::HashMap;

use super::diagnostics::{Diagnostics, Position};
use super::header::{self, Attributes, attributes};
use super::score::{Key, Mark, Meter, Score, Tempo};
use super::voice::{Drum, Reading};
use super::{layout, repair};
use crate::{Error, Result};

/// More voices than any score has; what else there is of them is left out.
const MOST_VOICES: usize = 100;
/// Bars that `Z` may make of one piece.
const MOST_RESTS: i64 = 10_000;
/// Bars of all voices together.
const MOST_BARS: usize = 3_000_000;

pub(crate) fn read(text: &str, file: &str) -> Result<Score> {
    let mut reader = Reader::new(text, file);
    let lines = text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    for (number, line) in lines.enumerate() {
        if !reader.line(line, number + 1)? {
            break;
        }
    }
    reader.finish()
}

struct Reader {
    diagnostics: Diagnostics,
    titles: Vec<String>,
    composers: Vec<String>,
    unit: (i64, i64),
    key: Option<Key>,
    /// Of the piece's `K:` field: for voices that say nothing else.
    attributes: Attributes,
    meter: Option<Meter>,
    tempo: Option<Tempo>,
    layout: Option<(String, Position)>,
    symbols: HashMap<u8, String>,
    voices: Vec<Reading>,
    places: HashMap<String, usize>,
    current: Option<usize>,
    /// A voice that is left out is current.
    ignored: bool,
    /// Music was seen.
    started: bool,
    /// A field was seen that ABC cannot be without.
    abc: bool,
    /// The piece is a line a bar.
    interleaved: bool,
    /// Bars of resting voices are left out of it.
    reduced: bool,
    /// What all voices have after a line of interleaved ABC.
    bars: usize,
    /// Bars that a voice lacks which is in the line: its place, and their numbers.
    uneven: Vec<(Position, usize, usize)>,
    /// A `V:` field of the header whose name goes on in the next line.
    unfinished: Option<(String, Position)>,
    rests: i64,
    last_line: usize,
}

fn default_symbols() -> HashMap<u8, String> {
    let symbols = [
        (b'~', "roll"),
        (b'H', "fermata"),
        (b'L', ">"),
        (b'M', "lowermordent"),
        (b'O', "coda"),
        (b'P', "uppermordent"),
        (b'S', "segno"),
        (b'T', "trill"),
        (b'u', "upbow"),
        (b'v', "downbow"),
    ];
    symbols.into_iter().map(|(symbol, name)| (symbol, name.to_owned())).collect()
}

/// Decorations that stand for a moment and not for a note.
pub(crate) fn is_mark(name: &str) -> bool {
    matches!(
        name,
        "p" | "pp"
            | "ppp"
            | "pppp"
            | "f"
            | "ff"
            | "fff"
            | "ffff"
            | "mp"
            | "mf"
            | "sfz"
            | "sf"
            | "fp"
            | "rf"
            | "rfz"
            | ">("
            | ">)"
            | "<("
            | "<)"
            | "crescendo("
            | "crescendo)"
            | "diminuendo("
            | "diminuendo)"
            | "8va("
            | "8va)"
            | "8vb("
            | "8vb)"
            | "ped"
            | "ped-up"
            | "coda"
            | "segno"
            | "fine"
            | "D.S."
            | "D.C."
            | "dacapo"
            | "dacoda"
    )
}

impl Reader {
    fn new(text: &str, file: &str) -> Reader {
        let mut marks = text.split(['\n', '\r']).map(|line| (line, line.match_indices("[V:").count()));
        let interleaved = marks.any(|(line, marks)| marks > 1 || (marks > 0 && line.starts_with("[r:")));
        Reader {
            diagnostics: Diagnostics::new(file),
            titles: Vec::new(),
            composers: Vec::new(),
            unit: (1, 8),
            key: None,
            attributes: Attributes::default(),
            meter: None,
            tempo: None,
            layout: None,
            symbols: default_symbols(),
            voices: Vec::new(),
            places: HashMap::new(),
            current: None,
            ignored: false,
            started: false,
            abc: false,
            interleaved,
            reduced: true,
            bars: 0,
            uneven: Vec::new(),
            unfinished: None,
            rests: 0,
            last_line: 0,
        }
    }

    /// Reads a line; says whether the piece goes on.
    fn line(&mut self, line: &str, number: usize) -> Result<bool> {
        let text = line.trim();
        if text.is_empty() {
            return Ok(true);
        }
        self.last_line = number;
        let at = Position { line: number, column: 1 + line.chars().take_while(|c| c.is_whitespace()).count() };
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
            // Text fields may have `%` in them; others do not.
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

    /// Is this `letter:` a field, and not a note before a repeat?
    fn is_field(&self, bytes: &[u8]) -> bool {
        let repeat = matches!(bytes.get(2), Some(b'|' | b':'));
        if self.started { b"KLMQVPIwWTXNrRUmsZSHOFDB".contains(&bytes[0]) && !repeat } else { !repeat }
    }

    fn directive(&mut self, text: &str, at: Position) {
        let (name, value) = text.split_once(|c: char| c.is_whitespace()).unwrap_or((text, ""));
        match name {
            "score" | "staves" if self.layout.is_none() => self.layout = Some((value.to_owned(), at)),
            "score" | "staves" => self.diagnostics.add(at, "", 0, "another %%score; only the first counts"),
            "MIDI" | "midi" => self.midi(value),
            "percmap" => self.drum(value),
            _ => {}
        }
    }

    fn midi(&mut self, value: &str) {
        let mut words = value.split_whitespace();
        let program = match words.next() {
            Some("program") => words.last().and_then(header::number).and_then(|n| u8::try_from(n).ok()),
            _ => None,
        };
        if let (Some(program), Some(voice)) = (program.filter(|program| *program < 128), self.reading()) {
            voice.voice.program = Some(program);
        }
    }

    /// `percmap note step sound head`.
    fn drum(&mut self, value: &str) {
        let words: Vec<&str> = value.split_whitespace().collect();
        let Some(note) = words.first().and_then(|word| music::plain_note(word)) else { return };
        let on_staff = words.get(1).and_then(|word| music::plain_note(word)).unwrap_or(note);
        let own = super::score::Note { step: note.0, octave: note.1, alter: note.2.unwrap_or(0), ..Default::default() };
        let sound = words.get(2).and_then(|word| header::number(word)).unwrap_or(i64::from(own.midi()));
        let drum = Drum { step: on_staff.0, octave: on_staff.1, sound: sound.clamp(0, 127) as u8 };
        if let Some(voice) = self.reading() {
            voice.drums.insert(note, drum);
        }
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        self.current.and_then(|place| self.voices.get_mut(place))
    }

    fn field(&mut self, letter: u8, value: &str, at: Position) {
        // After the first `V:` line the fields are those of that voice, once the piece has a key.
        let own = self.current.is_some() && (self.started || self.key.is_some());
        self.abc |= b"XLMKV".contains(&letter);
        match letter {
            b'T' if !self.started => self.titles.push(value.to_owned()),
            b'C' if !self.started => self.composers.push(value.to_owned()),
            b'V' => self.select(value, at),
            b'I' => self.directive(value, at),
            b'L' => match header::unit(value) {
                Some(unit) if own => {
                    if let Some(voice) = self.reading() {
                        voice.unit = unit;
                    }
                }
                Some(unit) => {
                    self.unit = unit;
                    self.voices.iter_mut().for_each(|voice| voice.unit = unit);
                }
                None => self.warn(at, format!("L:{value} is not a note length; left out")),
            },
            b'M' => match header::meter(value) {
                Ok(None) => {}
                Ok(Some(meter)) if own => {
                    if let Some(voice) = self.reading() {
                        voice.meter(meter, at);
                    }
                }
                Ok(Some(meter)) => {
                    self.voices.iter_mut().for_each(|voice| voice.meter(meter.clone(), at));
                    self.meter = Some(meter);
                }
                Err(()) => self.warn(at, format!("M:{value} is not a meter; left out")),
            },
            b'K' => self.key_field(value, own, at),
            b'Q' => {
                let unit = self.current.and_then(|place| self.voices.get(place)).map_or(self.unit, |voice| voice.unit);
                match (header::tempo(value, unit), self.started) {
                    (Some(tempo), true) => self.mark(Mark::Tempo(tempo), at),
                    (Some(tempo), false) => self.tempo = Some(tempo),
                    (None, _) if value.is_empty() => {}
                    (None, _) => self.warn(at, format!("Q:{value} is not a tempo; left out")),
                }
            }
            b'P' if self.started && !value.is_empty() => self.mark(Mark::Rehearsal(value.to_owned()), at),
            b'U' => {
                if let Some((symbol, name)) = value.split_once('=')
                    && let Some(symbol @ (b'~' | b'H'..=b'W' | b'h'..=b'w')) = symbol.trim().bytes().next()
                {
                    self.symbols.insert(symbol, name.trim().trim_matches(['!', '+']).to_owned());
                }
            }
            b'w' => {
                if let Some(voice) = self.reading() {
                    voice.lyrics(value);
                }
            }
            _ => {}
        }
    }

    fn key_field(&mut self, value: &str, own: bool, at: Position) {
        let key = header::key(value);
        if !header::is_key(value) {
            let done = if key.is_some() { "read as a major key" } else { "left out" };
            self.warn(at, format!("K:{value} is not a key; {done}"));
        }
        if own {
            if let Some(voice) = self.reading() {
                if let Some(key) = key {
                    voice.key(key, at);
                }
                voice.attributes(attributes(value), at);
            }
            return;
        }
        let key = key.unwrap_or_else(|| Key { mode: "major", ..Key::default() });
        self.attributes = attributes(value);
        for voice in &mut self.voices {
            voice.key(key.clone(), at);
            if voice.voice.clef.is_none() {
                voice.attributes(self.attributes.clone(), at);
            }
        }
        self.key = Some(key);
    }

    fn mark(&mut self, mark: Mark, at: Position) {
        if let Some(voice) = self.voices.get_mut(self.current.unwrap_or(0)) {
            voice.mark(mark, at);
        }
    }

    fn warn(&mut self, at: Position, problem: impl Into<String>) {
        let (voice, bar) = match self.current.and_then(|place| self.voices.get(place)) {
            Some(voice) if self.started => (voice.voice.id.clone(), voice.number()),
            _ => (String::new(), 0),
        };
        self.diagnostics.add(at, &voice, bar, problem);
    }

    /// `V:`: the voice that follows, and what it is.
    fn select(&mut self, value: &str, at: Position) {
        let (id, rest) = value.trim().split_once(|c: char| c.is_whitespace()).unwrap_or((value.trim(), ""));
        let id: String = id.chars().take(40).collect();
        if id.is_empty() {
            return self.warn(at, "a V: field without a voice; left out");
        }
        let place = match self.places.get(&id) {
            Some(place) => *place,
            None if self.voices.len() >= MOST_VOICES => {
                self.warn(at, format!("more than {MOST_VOICES} voices: V:{id} is left out"));
                (self.current, self.ignored) = (None, true);
                return;
            }
            None => self.add_voice(&id),
        };
        (self.current, self.ignored) = (Some(place), false);
        if !rest.trim().is_empty() {
            self.voices[place].attributes(attributes(rest), at);
        }
    }

    fn add_voice(&mut self, id: &str) -> usize {
        let place = self.voices.len();
        let mut voice = Reading::new(id, self.unit, self.key.as_ref(), self.meter.as_ref());
        voice.attributes(self.attributes.clone(), Position::default());
        self.voices.push(voice);
        self.places.insert(id.to_owned(), place);
        place
    }

    fn finish(mut self) -> Result<Score> {
        if let Some((field, at)) = self.unfinished.take() {
            self.select(&field, at);
        }
        if !self.abc {
            return Err(Error::NotAbc { file: self.diagnostics.file.clone() });
        }
        let at = Position { line: self.last_line.max(1), column: 1 };
        for voice in &mut self.voices {
            voice.end(at, &mut self.diagnostics);
        }
        let bars = self.voices.iter().map(|voice| voice.voice.bars.len()).max().unwrap_or(0);
        if bars == 0 {
            return Err(Error::NoNotes { file: self.diagnostics.file.clone(), line: at.line });
        }
        if bars * self.voices.len() > MOST_BARS {
            return Err(Error::TooLong { file: self.diagnostics.file.clone(), line: at.line });
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
        Ok(Score {
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

/// A line without its comment; `%` in closed quotes begins none.
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
                // The quote is not closed: the comment goes.
                let end = bytes[at..].iter().position(|b| *b == b'%').map_or(line.len(), |end| at + end);
                return &line[..end];
            }
        }
    }
    line
}
