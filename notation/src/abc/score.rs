//! A piece, parsed: voices of bars of events, all voices with the same bars.

use super::diagnostics::{AbcWarning, LineColumn};

/// Ticks of a quarter note: binary parts down to a 512th, and tuplets of any number up to 16, are whole.
pub const QUARTER: i64 = 17_297_280;
/// Ticks of a whole note.
pub const WHOLE: i64 = 4 * QUARTER;

/// A piece.
#[derive(Clone, Debug, Default)]
pub struct AbcScore {
    /// The `T:` lines.
    pub titles: Vec<String>,
    /// The `C:` lines, joined.
    pub composer: String,
    /// In the order of the text.
    pub voices: Vec<AbcVoice>,
    /// What stands together, in the order of the page.
    pub layout: Vec<LayoutEntry>,
    /// Instruments: voices by staff.
    pub parts: Vec<AbcPart>,
    /// The tempo at the beginning.
    pub tempo: Option<Tempo>,
    /// The length of each bar in ticks: that of the longest voice.
    pub lengths: Vec<i64>,
    /// The bar lines before and after each bar, the same for all voices.
    pub bar_lines: Vec<(BarLine, BarLine)>,
    /// What was not as it should be, in the order of the text.
    pub warnings: Vec<AbcWarning>,
}

/// An entry of the list of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutEntry {
    /// A bracket around parts begins.
    Open(Bracket),
    /// A part, by its place in [`AbcScore::parts`].
    Part(usize),
    /// The last bracket opened ends.
    Close,
}

/// What parts are held together by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bracket {
    /// `[ … ]`
    Square,
    /// `{ … }`
    Brace,
}

/// An instrument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbcPart {
    /// The name at the first line of the score.
    pub name: String,
    /// The name at the others.
    pub short_name: String,
    /// For each staff its voices, by their places in [`AbcScore::voices`].
    pub staves: Vec<Vec<usize>>,
}

/// A voice.
#[derive(Clone, Debug)]
pub struct AbcVoice {
    /// As in `V:`.
    pub id: String,
    /// The instrument.
    pub name: String,
    /// Its short name.
    pub short_name: String,
    /// At the beginning.
    pub clef: Option<Clef>,
    /// At the beginning.
    pub key: Option<KeySignature>,
    /// At the beginning.
    pub meter: Option<Meter>,
    /// Semitones from what is written to what sounds.
    pub transpose: i32,
    /// The General MIDI program, 0 to 127, where the text has one.
    pub program: Option<u8>,
    /// Lines of the staff, where not five.
    pub staff_lines: Option<u8>,
    /// Notes are drum sounds.
    pub percussion: bool,
    /// The music.
    pub bars: Vec<Bar>,
}

/// A bar of one voice.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// Where it begins.
    pub at: LineColumn,
    /// The voice, and what it has beside it (`&`).
    pub layers: Vec<Vec<AbcEvent>>,
    /// Before it.
    pub left: BarLine,
    /// After it.
    pub right: BarLine,
    /// Not in the text.
    pub missing: bool,
}

/// A bar line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BarLine {
    /// How it looks.
    pub style: BarLineStyle,
    /// What came before is repeated.
    pub repeat_end: bool,
    /// A repeat begins after it.
    pub repeat_start: bool,
    /// An ending begins after it: `1`, `2`, `1,3`, `1-3` or a `"` and a text; empty if not.
    pub ending: String,
}

/// How a bar line looks; the later ones win over the earlier ones where voices differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BarLineStyle {
    /// `|`
    #[default]
    Single,
    /// `[|]`
    Invisible,
    /// `.|`
    Dotted,
    /// `||`
    Double,
    /// `|]`
    Final,
}

/// What is in a bar.
#[derive(Clone, Debug, PartialEq)]
pub enum AbcEvent {
    /// Notes, or a rest, that take time.
    Chord(Chord),
    /// Grace notes before the next chord; struck through or not.
    Grace(Vec<Chord>, bool),
    /// Something that takes no time.
    Mark(AbcMark),
}

/// Notes that sound together; none is a rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chord {
    /// The notes.
    pub notes: Vec<Note>,
    /// Ticks as it looks.
    pub nominal: i64,
    /// Ticks as it sounds.
    pub ticks: i64,
    /// A rest that is not shown.
    pub invisible: bool,
    /// A rest that fills the bar, however long that is.
    pub whole_bar: bool,
    /// Nothing in the text: put in so that the bar is full.
    pub filled: bool,
    /// Its tuplet.
    pub tuplet: Option<Tuplet>,
    /// Slurs that begin or end here.
    pub slurs: Vec<Slur>,
    /// Their names, without `!`.
    pub decorations: Vec<String>,
    /// No beam from the note before.
    pub space_before: bool,
    /// A syllable for each verse.
    pub lyrics: Vec<Option<Syllable>>,
}

/// A note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// 0 to 6: C to B.
    pub step: u8,
    /// As in MusicXML: 4 has the middle C.
    pub octave: i8,
    /// Semitones, the key's and the bar's accidentals counted.
    pub alter: i8,
    /// An accidental that is written.
    pub accidental: Option<i8>,
    /// Ticks as it looks, where chords have notes of different length.
    pub nominal: i64,
    /// Held into the next chord.
    pub tie_start: bool,
    /// Held from the chord before.
    pub tie_stop: bool,
    /// The General MIDI drum sound.
    pub drum: Option<u8>,
}

impl Note {
    /// The MIDI number of the note as it is written.
    pub fn midi(&self) -> i32 {
        const STEPS: [i32; 7] = [0, 2, 4, 5, 7, 9, 11];
        (i32::from(self.octave) + 1) * 12 + STEPS[usize::from(self.step % 7)] + i32::from(self.alter)
    }
}

/// A chord's place in a tuplet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuplet {
    /// This many notes …
    pub actual: u32,
    /// … in the time of so many.
    pub normal: u32,
    /// The first of it.
    pub start: bool,
    /// The last of it.
    pub stop: bool,
}

/// An end of a slur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slur {
    /// Both ends have the same.
    pub id: u32,
    /// It begins here.
    pub start: bool,
    /// Not a full line.
    pub dotted: bool,
}

/// A syllable under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syllable {
    /// Empty where the one before is held.
    pub text: String,
    /// The word goes on.
    pub hyphen: bool,
}

/// What takes no time.
#[derive(Clone, Debug, PartialEq)]
pub enum AbcMark {
    /// Words, above the staff or below.
    Text(String, bool),
    /// A chord symbol.
    Harmony(String),
    /// A decoration that belongs to a time and not to a note: dynamics, hairpins, pedal, signs.
    Decoration(String),
    /// Of this voice.
    Key(KeySignature),
    /// Of this voice.
    Meter(Meter),
    /// Of this voice.
    Clef(Clef),
    /// Of the piece.
    Tempo(Tempo),
    /// A rehearsal mark.
    Rehearsal(String),
    /// The voice goes to another staff of its part: this many further down.
    Staff(i32),
}

/// A key signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySignature {
    /// Sharps; flats are negative.
    pub fifths: i8,
    /// MusicXML's name of the mode.
    pub mode: &'static str,
    /// Semitones for C, D, … B.
    pub alters: [i8; 7],
    /// The signature is that of `alters`, and not of `fifths`.
    pub explicit: bool,
}

/// A time signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// `3`, or `3+2`.
    pub beats: String,
    /// What is counted.
    pub beat_type: u32,
    /// `C` or `C|`.
    pub symbol: Option<&'static str>,
    /// Ticks of a bar.
    pub length: i64,
}

/// A clef.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clef {
    /// MusicXML's sign.
    pub sign: &'static str,
    /// The line it sits on; 0 for none.
    pub line: u8,
    /// Octaves of the small 8.
    pub octave: i8,
}

/// A tempo.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tempo {
    /// Its words.
    pub text: String,
    /// A note value (numerator and denominator) and how many of it in a minute.
    pub beat: Option<(u32, u32, f64)>,
    /// Quarter notes a minute.
    pub quarters: f64,
}
