//! What is read of a part before it is written: voices, and what happens in each of their bars.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

/// A piece of ABC.
pub(super) type Abc = Cow<'static, str>;

/// A note, chord or rest.
#[derive(Debug, Default)]
pub(super) struct XmlNote {
    /// When it begins, in divisions from the start of the measure.
    pub time: i64,
    /// In divisions; 0 for grace notes.
    pub length: i64,
    /// Of a tuplet: so many notes in the time of so many.
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
    /// What it is: the pitch, or a kind of rest. A tied one ends in `-`.
    pub head: Abc,
    /// The other notes of a chord.
    pub chord: Vec<Abc>,
    /// Syllables by verse.
    pub lyrics: Vec<(usize, String)>,
}

impl XmlNote {
    /// It is one of these rests.
    pub(super) fn rests(&self, kinds: &[&str]) -> bool {
        kinds.contains(&&*self.head)
    }

    /// Its head and those of its chord.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Abc> {
        std::iter::once(&self.head).chain(&self.chord)
    }
}

/// A place in the list of a part's notes.
pub(super) type NoteId = usize;

/// What a bar of a voice consists of.
#[derive(Debug)]
pub(super) enum Item {
    /// A note, chord or rest.
    Note(NoteId),
    /// Anything else.
    Sign {
        /// When it stands, in divisions from the start of the measure.
        time: i64,
        /// What is written.
        text: Sign,
    },
}

/// What is written between notes.
#[derive(Debug)]
pub(super) enum Sign {
    /// Known when it was read.
    Text(Abc),
    /// A repeated measure, of which the end comes later: a place in [`XmlPart::repeats`].
    Repeat(usize),
}

/// The words of a verse in one bar.
#[derive(Clone, Debug, Default)]
pub(super) struct Verse {
    /// As in ABC's `w:` lines.
    pub words: String,
    /// A syllable goes on after the bar.
    pub goes_on: bool,
}

/// A note of a percussion part, by its name in ABC.
#[derive(Debug)]
pub(super) struct XmlDrum {
    /// Where it stands on the staff.
    pub step: String,
    /// MIDI's number.
    pub pitch: i64,
    /// The shape of its head.
    pub head: String,
}

/// A voice of a part.
#[derive(Debug)]
pub(super) struct XmlVoice {
    /// MusicXML's number of it.
    pub number: i64,
    /// The staff that most of its notes are on.
    pub home: i64,
    /// The staff that its next note is expected on.
    pub staff: i64,
    /// One of its notes has a stem.
    pub stems: bool,
    /// Notes, and other signs worth writing; a voice without is left out.
    pub sounds: usize,
    /// Accidentals of this bar, by step and octave.
    pub altered: BTreeMap<(char, i64), i64>,
    /// What is to stand first in this bar, the last first.
    pub front: Vec<Item>,
    /// This bar, as read.
    pub items: Vec<Item>,
    /// The syllables of this bar's notes.
    pub syllables: Vec<Vec<(usize, String)>>,
    /// The bars before, in order of time.
    pub bars: Vec<Vec<Item>>,
    /// Their verses by number.
    pub verses: Vec<BTreeMap<usize, Verse>>,
    /// Percussion notes by name.
    pub drums: BTreeMap<String, XmlDrum>,
}

impl XmlVoice {
    pub(super) fn new(number: i64) -> XmlVoice {
        XmlVoice {
            number,
            home: 1,
            staff: 1,
            stems: false,
            sounds: 0,
            altered: BTreeMap::new(),
            front: Vec::new(),
            items: Vec::new(),
            syllables: Vec::new(),
            bars: Vec::new(),
            verses: Vec::new(),
            drums: BTreeMap::new(),
        }
    }
}

/// A part, read.
#[derive(Debug, Default)]
pub(super) struct XmlPart {
    /// In the order in which they are written.
    pub voices: Vec<XmlVoice>,
    /// Of all voices.
    pub notes: Vec<XmlNote>,
    /// Divisions of a quarter, by measure.
    pub divisions: Vec<i64>,
    /// Texts of repeated measures.
    pub repeats: Vec<String>,
    /// The voices at home on each staff.
    pub staves: BTreeMap<i64, Vec<usize>>,
    /// The clef of each staff at the beginning.
    pub clefs: BTreeMap<i64, String>,
}
