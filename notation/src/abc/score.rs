//! A parsed piece: voices, with bars, with events. All voices have the same bars.

use super::diagnostics::{AbcWarning, LineColumn};

/// Ticks of a quarter note. Note values down to a 512th, and tuplets of up to 16 notes, are whole numbers of ticks.
pub const QUARTER: i64 = 17_297_280;
/// Ticks of a whole note.
pub const WHOLE: i64 = 4 * QUARTER;

/// A parsed piece.
#[derive(Clone, Debug, Default)]
pub struct AbcScore {
    /// The `T:` lines.
    pub titles: Vec<String>,
    /// The `C:` lines, joined.
    pub composer: String,
    /// The voices, in the order of the text.
    pub voices: Vec<AbcVoice>,
    /// The parts and their brackets, in the order of the page.
    pub layout: Vec<LayoutEntry>,
    /// The instruments, with their voices by staff.
    pub parts: Vec<AbcPart>,
    /// The tempo at the beginning.
    pub tempo: Option<Tempo>,
    /// The length of each bar in ticks, which is that of its longest voice.
    pub lengths: Vec<i64>,
    /// The bar lines before and after each bar, the same for all voices.
    pub bar_lines: Vec<(BarLine, BarLine)>,
    /// What was wrong, in the order of the text.
    pub warnings: Vec<AbcWarning>,
}

/// An entry of the list of parts and brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutEntry {
    /// A bracket around parts begins.
    Open(Bracket),
    /// A part, by its index in [`AbcScore::parts`].
    Part(usize),
    /// The bracket opened last ends.
    Close,
}

/// A bracket around parts.
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
    /// The name beside the first system of the score.
    pub name: String,
    /// The name beside the other systems.
    pub short_name: String,
    /// The voices of each staff, by their indices in [`AbcScore::voices`].
    pub staves: Vec<Vec<usize>>,
}

/// A voice.
#[derive(Clone, Debug, Default)]
pub struct AbcVoice {
    /// The id, as after `V:`.
    pub id: String,
    /// The instrument's name.
    pub name: String,
    /// The instrument's short name.
    pub short_name: String,
    /// The clef at the beginning.
    pub clef: Option<Clef>,
    /// The key at the beginning.
    pub key: Option<KeySignature>,
    /// The meter at the beginning.
    pub meter: Option<Meter>,
    /// Semitones from the written to the sounding pitch.
    pub transpose: i32,
    /// The General MIDI program, 0 to 127, if the text has one.
    pub program: Option<u8>,
    /// The lines of the staff, if the text has their number.
    pub staff_lines: Option<u8>,
    /// The notes are percussion sounds.
    pub percussion: bool,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// A bar of one voice.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// Where it begins.
    pub at: LineColumn,
    /// The events of the voice, and of each layer that `&` adds to it.
    pub layers: Vec<Vec<AbcEvent>>,
    /// The bar line before it.
    pub left: BarLine,
    /// The bar line after it.
    pub right: BarLine,
    /// The bar is not in the text.
    pub missing: bool,
}

/// A bar line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BarLine {
    /// How it looks.
    pub style: BarLineStyle,
    /// A repeat ends before it.
    pub repeat_end: bool,
    /// A repeat begins after it.
    pub repeat_start: bool,
    /// An ending begins after it: `1`, `2`, `1,3`, `1-3` or a `"` and a text; empty if not.
    pub ending: String,
}

/// How a bar line looks. Where voices differ equally, the later style counts.
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

/// An event of a bar.
#[derive(Clone, Debug, PartialEq)]
pub enum AbcEvent {
    /// Notes or a rest.
    Chord(Chord),
    /// Grace notes before the next chord, and whether they are struck through.
    Grace(Vec<Chord>, bool),
    /// Something that takes no time.
    Mark(AbcMark),
}

/// Notes that sound together; without notes, a rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chord {
    /// The notes.
    pub notes: Vec<AbcNote>,
    /// Its written length in ticks.
    pub nominal: i64,
    /// Its sounding length in ticks, shorter in tuplets.
    pub ticks: i64,
    /// A rest that is not shown.
    pub invisible: bool,
    /// A rest for the whole bar, whatever the bar's length.
    pub whole_bar: bool,
    /// A rest that is not in the text, and fills the bar.
    pub filled: bool,
    /// Its tuplet.
    pub tuplet: Option<Tuplet>,
    /// Slurs that begin or end here.
    pub slurs: Vec<Slur>,
    /// The names of its decorations, without `!`.
    pub decorations: Vec<String>,
    /// No beam from the note before.
    pub space_before: bool,
    /// A syllable for each verse.
    pub lyrics: Vec<Option<Syllable>>,
}

/// A note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbcNote {
    /// The step, 0 to 6 for C to B.
    pub step: u8,
    /// The octave, as in MusicXML: octave 4 begins with middle C.
    pub octave: i8,
    /// The alteration in semitones, by key and accidentals.
    pub alter: i8,
    /// The written accidental.
    pub accidental: Option<i8>,
    /// Its written length in ticks. The notes of a chord may differ.
    pub nominal: i64,
    /// It is tied to the next chord.
    pub tie_start: bool,
    /// It is tied to the chord before.
    pub tie_stop: bool,
    /// The General MIDI percussion sound.
    pub drum: Option<u8>,
}

impl AbcNote {
    /// The MIDI number of the written note.
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
    /// The slur's number, the same at both ends.
    pub id: u32,
    /// It begins here.
    pub start: bool,
    /// It is drawn as a dotted line.
    pub dotted: bool,
}

/// A syllable under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syllable {
    /// The text; empty if the syllable before is held.
    pub text: String,
    /// The word continues after it.
    pub hyphen: bool,
}

/// An event that takes no time.
#[derive(Clone, Debug, PartialEq)]
pub enum AbcMark {
    /// Words, and whether they are above the staff.
    Text(String, bool),
    /// A chord symbol.
    Harmony(String),
    /// A decoration that belongs to a moment, and not to a note: dynamics, hairpins, pedal, signs.
    Decoration(String),
    /// A change of key, in this voice.
    Key(KeySignature),
    /// A change of meter, in this voice.
    Meter(Meter),
    /// A change of clef, in this voice.
    Clef(Clef),
    /// A change of tempo, in all voices.
    Tempo(Tempo),
    /// A rehearsal mark.
    Rehearsal(String),
    /// The voice moves this many staves down within its part.
    Staff(i32),
}

/// A key signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySignature {
    /// The number of sharps; flats are negative.
    pub fifths: i8,
    /// MusicXML's name of the mode.
    pub mode: &'static str,
    /// The alteration of C, D, … B in semitones.
    pub alters: [i8; 7],
    /// The signature has the accidentals of `alters`, not the usual ones of `fifths`.
    pub explicit: bool,
}

/// A time signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// The beats: `3` or `3+2`.
    pub beats: String,
    /// The note value of a beat.
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
    /// Its line on the staff, counted from below; 0 for none.
    pub line: u8,
    /// The octaves of a small 8 above or below.
    pub octave: i8,
}

/// A tempo.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tempo {
    /// The words.
    pub text: String,
    /// A note value (numerator and denominator), and how many of it a minute has.
    pub beat: Option<(u32, u32, f64)>,
    /// Quarter notes a minute.
    pub quarters: f64,
}
