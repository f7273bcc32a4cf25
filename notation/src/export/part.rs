//! The state of a part while it is written, and what its bars share.

use std::collections::{BTreeSet, HashMap};

use super::xml::XmlWriter;
use crate::abc::score::{AbcEvent, AbcNote, AbcPart, AbcScore, AbcVoice, Chord, Clef, KeySignature, QUARTER};

pub(super) const STEPS: [&str; 7] = ["C", "D", "E", "F", "G", "A", "B"];

/// Divisions of a quarter note for pieces that need more. Every program can read so many.
const MOST_DIVISIONS: i64 = 10_080;

/// Slurs of a part that may be open at once. MusicXML numbers them up to here.
const SLURS: usize = 16;

/// Converts ticks to divisions.
#[derive(Clone, Copy)]
pub(super) struct DivisionScale {
    pub divisions: i64,
}

impl DivisionScale {
    /// The fewest divisions with which no length is rounded.
    pub fn of(score: &AbcScore) -> DivisionScale {
        let mut common = QUARTER;
        let mut also = |ticks: i64| {
            let (mut a, mut b) = (common, ticks);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            common = a;
        };
        let bars = score.voices.iter().flat_map(|voice| &voice.bars);
        for event in bars.flat_map(|bar| bar.layers.iter().flatten()) {
            if let AbcEvent::Chord(chord) = event {
                also(chord.ticks);
                chord.notes.iter().for_each(|note| also(note_ticks(chord, note)));
            }
        }
        let divisions = QUARTER / common.max(1);
        DivisionScale { divisions: if divisions > MOST_DIVISIONS { MOST_DIVISIONS } else { divisions } }
    }

    pub fn position(self, ticks: i64) -> i64 {
        ((i128::from(ticks) * i128::from(self.divisions) + i128::from(QUARTER / 2)) / i128::from(QUARTER)) as i64
    }
}

/// The sounding length of a note in a chord, in ticks.
pub(super) fn note_ticks(chord: &Chord, note: &AbcNote) -> i64 {
    if note.nominal == chord.nominal || chord.nominal == 0 {
        return chord.ticks;
    }
    (i128::from(note.nominal) * i128::from(chord.ticks) / i128::from(chord.nominal)).max(1) as i64
}

pub(super) fn voices_of<'a>(score: &'a AbcScore, part: &'a AbcPart) -> impl Iterator<Item = &'a AbcVoice> {
    part.staves.iter().flatten().filter_map(|place| score.voices.get(*place))
}

/// The percussion sounds of a part.
pub(super) fn drums(score: &AbcScore, part: &AbcPart) -> BTreeSet<u8> {
    let events = voices_of(score, part).flat_map(|voice| &voice.bars).flat_map(|bar| bar.layers.iter().flatten());
    let chords = events.filter_map(|event| if let AbcEvent::Chord(chord) = event { Some(chord) } else { None });
    chords.flat_map(|chord| &chord.notes).filter_map(|note| note.drum).collect()
}

/// Writes a part, measure after measure.
pub(super) struct PartWriter<'a> {
    pub score: &'a AbcScore,
    pub part: &'a AbcPart,
    pub number: usize,
    pub scale: DivisionScale,
    pub xml: &'a mut XmlWriter,
    pub drums: bool,
    /// How many staves below its own each voice currently is.
    pub moved: Vec<i32>,
    /// The MusicXML number of each open slur, by voice and slur.
    pub slurs: HashMap<(usize, u32), usize>,
    /// The numbers that no open slur has.
    pub free: Vec<usize>,
    /// Whether the last syllable ended with a hyphen, by voice and verse.
    pub hyphens: HashMap<(usize, usize), bool>,
    /// The ending that is open, by its number in MusicXML.
    pub ending: String,
}

/// A voice's place in its part.
#[derive(Clone, Copy)]
pub(super) struct VoicePlace {
    /// The index of the voice in the score.
    pub voice: usize,
    /// The index of its staff.
    pub staff: usize,
    /// The index of the voice in the part.
    pub index: usize,
    /// It is the first voice of its staff.
    pub first: bool,
}

impl<'a> PartWriter<'a> {
    pub fn new(
        score: &'a AbcScore,
        part: &'a AbcPart,
        number: usize,
        scale: DivisionScale,
        xml: &'a mut XmlWriter,
    ) -> PartWriter<'a> {
        PartWriter {
            score,
            part,
            number: number + 1,
            scale,
            xml,
            drums: !drums(score, part).is_empty(),
            moved: vec![0; score.voices.len()],
            slurs: HashMap::new(),
            free: (1..=SLURS).rev().collect(),
            hyphens: HashMap::new(),
            ending: String::new(),
        }
    }

    pub fn key(&mut self, key: Option<&KeySignature>) {
        let c = KeySignature { mode: "major", ..KeySignature::default() };
        let key = key.unwrap_or(&c);
        if key.explicit && key.alters == [0; 7] {
            return self.key(None);
        }
        self.xml.open("key", &[]);
        if key.explicit {
            for (step, alter) in key.alters.iter().enumerate().filter(|(_, alter)| **alter != 0) {
                self.xml.leaf("key-step", &[], STEPS[step]);
                self.xml.number("key-alter", alter);
            }
        } else {
            self.xml.number("fifths", key.fifths);
            self.xml.leaf("mode", &[], key.mode);
        }
        self.xml.close();
    }

    pub fn clef(&mut self, clef: &Clef, staff: usize) {
        let number = (staff + 1).to_string();
        let numbered = [("number", number.as_str())];
        self.xml.open("clef", if self.part.staves.len() > 1 { &numbered } else { &[] });
        self.xml.leaf("sign", &[], clef.sign);
        if clef.line > 0 {
            self.xml.number("line", clef.line);
        }
        if clef.octave != 0 {
            self.xml.number("clef-octave-change", clef.octave);
        }
        self.xml.close();
    }

    /// The number of a voice's staff, if the part has several.
    pub fn staff(&self, place: VoicePlace) -> Option<usize> {
        let staves = self.part.staves.len();
        let staff = (place.staff as i32 + self.moved[place.voice]).clamp(0, staves as i32 - 1) as usize;
        (staves > 1).then_some(staff + 1)
    }
}
