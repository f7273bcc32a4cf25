//! What the converter knows while it reads: about the score, and about the part at hand.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::fault::Fault;
use super::fields::NoteFields;
use super::score::{Abc, BarItem, NoteId, Sign, XmlPart};
use super::xml::{Node, real};

/// What one part passes on to the next, and what the parts have found out for the header.
#[derive(Default)]
pub(super) struct ScoreState {
    /// Sibelius numbers the voices of each staff from 1.
    pub sibelius: bool,
    /// The header's key.
    pub key: Option<String>,
    /// The header's meter.
    pub meter: Option<String>,
    /// The header's tempo.
    pub tempo: Option<HeaderTempo>,
    /// The MIDI number of each percussion instrument, by its id.
    pub drums: HashMap<String, i64>,
    /// The alteration of A to G by the key signature, in semitones.
    pub signature: [i64; 7],
    /// A group of grace notes has begun and not ended.
    pub grace: bool,
    /// Slurs of which one end has been read, by number.
    pub slurs: HashMap<String, OpenSlur>,
    /// Wedges, octave shifts and pedals of which one end has been read, by kind and number.
    pub spans: HashMap<(&'static str, String), OpenSpan>,
    /// The voice that pedal signs are written in.
    pub pedal: Option<i64>,
    /// What was odd, for the warnings.
    pub oddities: Vec<Oddity>,
}

/// Something odd that can be converted all the same.
pub(super) struct Oddity {
    /// Byte of the text.
    pub at: usize,
    /// The part, counted from 0.
    pub part: usize,
    /// The measure's number as printed.
    pub measure: String,
    /// What is odd, and what was made of it.
    pub text: String,
}

/// Reads a part, measure after measure.
pub(super) struct PartReader<'a, 'c> {
    pub score: &'c mut ScoreState,
    /// The part, counted from 0.
    pub index: usize,
    pub part: XmlPart,
    /// The part's `<note>` elements in order.
    pub fields: Vec<NoteFields<'a>>,
    /// The measure, counted from 0.
    pub measure: usize,
    pub measure_node: Node<'a>,
    /// The current time, in divisions from the start of the measure.
    pub time: i64,
    /// The latest time reached in the measure.
    pub end: i64,
    /// Divisions of a quarter note.
    pub divisions: i64,
    /// Multiplies divisions and durations, so that durations with decimals become whole numbers; else 1.
    pub scale: i64,
    pub beats: (i64, i64),
    /// The measure's length by its meter.
    pub full: i64,
    /// Keys and meters to write before the measure.
    pub signatures: String,
    pub repeat_begins: bool,
    pub bar_line: &'static str,
    pub ending: String,
    /// The last note, for chords and grace notes.
    pub last: Option<NoteId>,
    /// By staff: octaves from the sounding pitch to the written one.
    pub octave_shifts: BTreeMap<i64, i64>,
    /// By staff: the current clef.
    pub clefs: BTreeMap<i64, String>,
    /// Voices with the last instrument that each of them names.
    pub instruments: Vec<(usize, Cow<'a, str>)>,
    /// By staff, measure repeats that have not ended: index in [`XmlPart::repeats`], first measure, text.
    pub measure_repeats: BTreeMap<i64, (usize, usize, String)>,
}

/// A slur of which one end has been read.
pub(super) struct OpenSlur {
    pub starts: bool,
    pub part: usize,
    /// MusicXML's number of the voice.
    pub voice: i64,
    pub note: NoteId,
    pub grace: bool,
}

/// A wedge, octave shift or pedal of which one end has been read.
pub(super) enum OpenSpan {
    /// It has begun; `closing` is the sign that will end it.
    Begun { closing: &'static str, voice: i64 },
    /// Its end came first, at this time of the measure.
    Ended { time: i64 },
}

/// A tempo of the header.
#[derive(Clone, Debug)]
pub(super) struct HeaderTempo {
    /// The note that is counted, as a fraction of a whole note.
    pub unit: (i64, i64),
    /// How many of them a minute has.
    pub rate: String,
}

impl<'a, 'c> PartReader<'a, 'c> {
    pub(super) fn new(state: &'c mut ScoreState, index: usize, node: Node<'a>) -> PartReader<'a, 'c> {
        PartReader {
            score: state,
            index,
            part: XmlPart::default(),
            fields: Vec::new(),
            measure: 0,
            measure_node: node,
            time: 0,
            end: 0,
            divisions: 0,
            scale: 1,
            beats: (4, 4),
            full: 0,
            signatures: String::new(),
            repeat_begins: false,
            bar_line: "|",
            ending: String::new(),
            last: None,
            octave_shifts: BTreeMap::new(),
            clefs: BTreeMap::new(),
            instruments: Vec::new(),
            measure_repeats: BTreeMap::new(),
        }
    }

    /// The index of the voice with this MusicXML number.
    pub(super) fn slot(&self, number: i64) -> Option<usize> {
        self.part.voices.iter().position(|voice| voice.number == number)
    }

    /// A `<duration>` in divisions.
    pub(super) fn duration(&self, node: Node) -> Result<i64, Fault> {
        let length = if self.scale == 1 { node.whole()? } else { scaled(node, self.scale)? };
        if length < 0 {
            return Err(node.fault(format!("<duration> is {}, less than 0", node.text())));
        }
        Ok(length)
    }

    pub(super) fn advance(&mut self, length: i64) {
        self.time = (self.time + length).max(0);
        self.end = self.end.max(self.time);
    }

    /// Adds a sign at the current time. One that `counts` is reason enough to write a voice that has nothing else.
    pub(super) fn sign(&mut self, slot: usize, text: impl Into<Abc>, counts: bool) {
        let voice = &mut self.part.voices[slot];
        voice.items.push(BarItem::Sign { time: self.time, text: Sign::Text(text.into()) });
        voice.sounds += usize::from(counts);
    }

    /// Records something odd, for the warnings.
    pub(super) fn notice(&mut self, node: Node, text: impl Into<String>) {
        let measure = self.measure_node.attribute("number").unwrap_or_default().into_owned();
        self.score.oddities.push(Oddity { at: node.at(), part: self.index, measure, text: text.into() });
    }
}

/// A decimal number of divisions, multiplied by `scale`.
pub(super) fn scaled(node: Node, scale: i64) -> Result<i64, Fault> {
    let number = real(node.text()).map(|number| (number * scale as f64).round());
    match number.filter(|number| number.abs() < (1_u64 << 45) as f64) {
        Some(number) => Ok(number as i64),
        None => Err(node.fault(format!("<{}> is {:?}, not a number of divisions", node.name(), node.text()))),
    }
}
