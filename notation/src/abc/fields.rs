//! What is known of a piece while it is read, and how fields and directives change it.

use std::collections::HashMap;

use super::diagnostics::{Diagnostics, LineColumn};
use super::header::{self, VoiceAttributes, attributes};
use super::scan::MusicScanner;
use super::score::{AbcMark, AbcNote, KeySignature, Meter, Tempo};
use super::voice::{DrumSound, VoiceReader};
use crate::{Error, Result};

/// Voices of a piece; more than any score has. Those beyond are left out.
const MOST_VOICES: usize = 100;
/// Bars of all voices together.
const MOST_BARS: usize = 3_000_000;

/// Reads a piece.
#[derive(Default)]
pub(super) struct AbcReader {
    pub diagnostics: Diagnostics,
    pub titles: Vec<String>,
    pub composers: Vec<String>,
    pub unit: (i64, i64),
    pub key: Option<KeySignature>,
    /// The attributes in the header's `K:` field. Voices have them unless they have their own.
    pub attributes: VoiceAttributes,
    pub meter: Option<Meter>,
    pub tempo: Option<Tempo>,
    pub layout: Option<(String, LineColumn)>,
    pub symbols: HashMap<u8, String>,
    pub voices: Vec<VoiceReader>,
    /// The index of each voice, by its id.
    pub voice_indices: HashMap<String, usize>,
    /// The index of the current voice.
    pub current: Option<usize>,
    /// The current voice is left out.
    pub ignored: bool,
    /// The music has begun.
    pub started: bool,
    /// One of the fields that every piece of ABC has was read.
    pub abc: bool,
    /// The piece has a line for each bar.
    pub interleaved: bool,
    /// The bars of resting voices are left out, as far as the piece has been read.
    pub reduced: bool,
    /// The bars of every voice after the last line of interleaved ABC.
    pub bars: usize,
    /// Bars that a voice lacks although it is in the line: where, the voice's index, the bar's number.
    pub uneven: Vec<(LineColumn, usize, usize)>,
    /// A `V:` field of the header in which a quotation mark is still open.
    pub unfinished: Option<(String, LineColumn)>,
    /// Bars added by `Z` so far.
    pub rests: i64,
    pub last_line: usize,
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

impl AbcReader {
    pub fn new(text: &str, file: &str) -> AbcReader {
        let mut marks = text.split(['\n', '\r']).map(|line| (line, line.match_indices("[V:").count()));
        let interleaved = marks.any(|(line, marks)| marks > 1 || (marks > 0 && line.starts_with("[r:")));
        AbcReader {
            diagnostics: Diagnostics::new(file),
            unit: (1, 8),
            symbols: default_symbols(),
            interleaved,
            reduced: true,
            ..AbcReader::default()
        }
    }

    /// The bars of the longest voice. `line` is for the error.
    ///
    /// # Errors
    /// [`Error::TooLong`], since every voice gets as many bars.
    pub fn longest(&self, line: usize) -> Result<usize> {
        let bars = self.voices.iter().map(|voice| voice.voice.bars.len()).max().unwrap_or(0);
        if bars * self.voices.len() > MOST_BARS {
            return Err(Error::TooLong { file: self.diagnostics.file.clone(), line });
        }
        Ok(bars)
    }

    pub fn directive(&mut self, text: &str, at: LineColumn) {
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

    /// A directive `percmap note step sound head`.
    fn drum(&mut self, value: &str) {
        let words: Vec<&str> = value.split_whitespace().collect();
        let Some(note) = words.first().and_then(|word| MusicScanner::plain_note(word)) else { return };
        let on_staff = words.get(1).and_then(|word| MusicScanner::plain_note(word)).unwrap_or(note);
        let own = AbcNote { step: note.0, octave: note.1, alter: note.2.unwrap_or(0), ..Default::default() };
        let sound = words.get(2).and_then(|word| header::number(word)).unwrap_or(i64::from(own.midi()));
        let drum = DrumSound { step: on_staff.0, octave: on_staff.1, sound: sound.clamp(0, 127) as u8 };
        if let Some(voice) = self.reading() {
            voice.drums.insert(note, drum);
        }
    }

    pub fn reading(&mut self) -> Option<&mut VoiceReader> {
        self.current.and_then(|place| self.voices.get_mut(place))
    }

    pub fn field(&mut self, letter: u8, value: &str, at: LineColumn) {
        // Once the piece has a key, fields after a `V:` line belong to that voice.
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
                    (Some(tempo), true) => self.mark(AbcMark::Tempo(tempo), at),
                    (Some(tempo), false) => self.tempo = Some(tempo),
                    (None, _) if value.is_empty() => {}
                    (None, _) => self.warn(at, format!("Q:{value} is not a tempo; left out")),
                }
            }
            b'P' if self.started && !value.is_empty() => self.mark(AbcMark::Rehearsal(value.to_owned()), at),
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

    fn key_field(&mut self, value: &str, own: bool, at: LineColumn) {
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
        let key = key.unwrap_or_else(|| KeySignature { mode: "major", ..KeySignature::default() });
        self.attributes = attributes(value);
        for voice in &mut self.voices {
            voice.key(key.clone(), at);
            if voice.voice.clef.is_none() {
                voice.attributes(self.attributes.clone(), at);
            }
        }
        self.key = Some(key);
    }

    fn mark(&mut self, mark: AbcMark, at: LineColumn) {
        if let Some(voice) = self.voices.get_mut(self.current.unwrap_or(0)) {
            voice.mark(mark, at);
        }
    }

    pub fn warn(&mut self, at: LineColumn, problem: impl Into<String>) {
        let (voice, bar) = match self.current.and_then(|place| self.voices.get(place)) {
            Some(voice) if self.started => (voice.voice.id.clone(), voice.number()),
            _ => (String::new(), 0),
        };
        self.diagnostics.add(at, &voice, bar, problem);
    }

    /// A `V:` field: selects the voice, and reads its attributes.
    pub fn select(&mut self, value: &str, at: LineColumn) {
        let (id, rest) = value.trim().split_once(|c: char| c.is_whitespace()).unwrap_or((value.trim(), ""));
        let id: String = id.chars().take(40).collect();
        if id.is_empty() {
            return self.warn(at, "a V: field without a voice; left out");
        }
        let place = match self.voice_indices.get(&id) {
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
        let mut voice = VoiceReader::new(id, self.unit, self.key.as_ref(), self.meter.as_ref());
        voice.attributes(self.attributes.clone(), LineColumn::default());
        self.voices.push(voice);
        self.voice_indices.insert(id.to_owned(), place);
        place
    }
}
