//! A part that has been read and will be written: its voices, and the notes and signs of their bars.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

/// A snippet of ABC.
pub(super) type Abc = Cow<'static, str>;

/// A note, chord or rest.
#[derive(Debug, Default)]
pub(super) struct XmlNote {
    /// When it begins, in divisions from the start of the measure.
    pub time: i64,
    /// In divisions; 0 for grace notes.
    pub length: i64,
    /// In a tuplet: so many notes in the time of so many.
    pub ratio: Option<(i64, i64)>,
    /// Tuplets that begin here.
    pub starts: usize,
    /// Tuplets that end here.
    pub stops: usize,
    /// The signs that open its tuplets.
    pub tuplet: String,
    /// Written without a space before it.
    pub beamed: bool,
    /// A grace note.
    pub grace: bool,
    /// What is written before it, in order.
    pub before: VecDeque<Abc>,
    /// What is written after it.
    pub after: String,
    /// The pitch, or a kind of rest. If tied it ends with `-`.
    pub head: Abc,
    /// The other notes of a chord.
    pub chord: Vec<Abc>,
    /// Syllables by verse.
    pub lyrics: Vec<(usize, String)>,
}

impl XmlNote {
    /// Whether it is one of these kinds of rests.
    pub(super) fn rests(&self, kinds: &[&str]) -> bool {
        kinds.contains(&&*self.head)
    }

    /// Its head and the other heads of its chord.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Abc> {
        std::iter::once(&self.head).chain(&self.chord)
    }
}

/// An index in the list of a part's notes.
pub(super) type NoteId = usize;

/// A note or a sign in a bar.
#[derive(Debug)]
pub(super) enum BarItem {
    /// A note, chord or rest.
    Note(NoteId),
    /// Something written between notes.
    Sign {
        /// Its time, in divisions from the start of the measure.
        time: i64,
        /// What is written.
        text: Sign,
    },
}

/// The text of a sign.
#[derive(Debug)]
pub(super) enum Sign {
    /// A text that is known.
    Text(Abc),
    /// A measure repeat whose end has not been read: an index in [`XmlPart::repeats`].
    Repeat(usize),
}

/// The words of a verse in one bar.
#[derive(Clone, Debug, Default)]
pub(super) struct Verse {
    /// As in ABC's `w:` lines.
    pub words: String,
    /// Its last syllable is held into the next bar.
    pub goes_on: bool,
}

/// A percussion note.
#[derive(Debug)]
pub(super) struct XmlDrum {
    /// Its place on the staff, as a note in ABC.
    pub step: String,
    /// The MIDI number.
    pub pitch: i64,
    /// The shape of its head.
    pub head: String,
}

/// A voice of a part.
#[derive(Debug, Default)]
pub(super) struct XmlVoice {
    /// The voice's number in MusicXML.
    pub number: i64,
    /// The staff that most of its notes are on.
    pub home: i64,
    /// The staff that its next note is expected on.
    pub staff: i64,
    /// Whether one of its notes has a stem.
    pub stems: bool,
    /// The number of notes and signs that are reason to write the voice. Without any it is left out.
    pub sounds: usize,
    /// The accidentals of the current bar, by step and octave.
    pub altered: BTreeMap<(char, i64), i64>,
    /// What the current bar begins with, in reverse order.
    pub front: Vec<BarItem>,
    /// The current bar, as it is read.
    pub items: Vec<BarItem>,
    /// The syllables of the current bar's notes.
    pub syllables: Vec<Vec<(usize, String)>>,
    /// The finished bars, with their items in order of time.
    pub bars: Vec<Vec<BarItem>>,
    /// The verses of the finished bars, by number.
    pub verses: Vec<BTreeMap<usize, Verse>>,
    /// Percussion notes, by their name in ABC.
    pub drums: BTreeMap<String, XmlDrum>,
}

impl XmlVoice {
    pub(super) fn new(number: i64) -> XmlVoice {
        XmlVoice { number, home: 1, staff: 1, ..XmlVoice::default() }
    }
}

/// A part that has been read.
#[derive(Debug, Default)]
pub(super) struct XmlPart {
    /// The voices, in the order in which they are written.
    pub voices: Vec<XmlVoice>,
    /// The notes of all voices.
    pub notes: Vec<XmlNote>,
    /// The divisions of a quarter note in each measure.
    pub divisions: Vec<i64>,
    /// The texts of measure repeats.
    pub repeats: Vec<String>,
    /// The voices whose home is each staff.
    pub staves: BTreeMap<i64, Vec<usize>>,
    /// The clef of each staff at the beginning.
    pub clefs: BTreeMap<i64, String>,
}
