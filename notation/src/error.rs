use std::path::PathBuf;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a piece, or with the folders that hold pieces.
///
/// The errors of one piece do not name its file: [`crate::preprocess`] puts it in front.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No scores where scores should be.
    #[error("{}: no scores here", path.display())]
    NoScores {
        /// The folder.
        path: PathBuf,
    },
    /// Two scores of one name: their results would have the same files.
    #[error("{} and {}: two scores of one name", path.display(), other.display())]
    SameName {
        /// One of them.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A path that cannot be written into an index.
    #[error("{}: the name is not UTF-8", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// An option out of its range.
    #[error("eval_split is {value}: it must be at least 0 and at most 1")]
    EvalSplit {
        /// The value given.
        value: f64,
    },
    /// Nowhere to write interleaved pieces to.
    #[error("neither a folder nor a packed corpus is given for the interleaved pieces")]
    NoOutput,
    /// An index that is not one.
    #[error("{}: line {line}: {problem}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A piece that was preprocessed and cannot be read.
    #[error("{}: {source}", path.display())]
    Piece {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A table of prompts that cannot be used.
    #[error("{}: line {line}, column {column}: {problem}", path.display())]
    Prompts {
        /// The table.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Counted in fields, from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A packed corpus that cannot be used.
    #[error("{}: {problem}", path.display())]
    Pack {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The worker threads could not be started.
    #[error("cannot start the worker threads: {0}")]
    Threads(String),
    /// The run was asked to stop.
    #[error("stopped; what is done is kept")]
    Stopped,

    /// A score in MusicXML that cannot be read.
    #[error("{}{problem}", prefix(name, position))]
    MusicXml {
        /// What the caller calls the score; may be empty.
        name: String,
        /// Where in the score.
        position: crate::musicxml::SourcePosition,
        /// What is wrong.
        problem: String,
    },
    /// Bytes that are not UTF-8.
    #[error("line {line}: not UTF-8 (byte {byte} of the file)")]
    Encoding {
        /// Counted from 1.
        line: usize,
        /// Counted from 0.
        byte: usize,
    },
    /// A character that the model's vocabulary lacks.
    #[error("line {line}, column {column}: {character:?} is not ASCII and has no transliteration")]
    NotAscii {
        /// Counted from 1, in the cleaned text.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// The character.
        character: char,
    },
    /// No line `V:1` that starts the music.
    #[error("no line that is `V:1` and nothing else starts the music of the first voice")]
    NoMusic,
    /// The header defines no voice.
    #[error("the header has no `V:` line")]
    NoVoices,
    /// The header has no key.
    #[error("the header has no `K:` field before its voices")]
    NoKey,
    /// A header line that is no field.
    #[error("header line {text:?} is not a field")]
    Header {
        /// The line.
        text: String,
    },
    /// A key signature within a voice's header lines, where the original fails.
    #[error("voice {voice} has a `K:` line of its own in the header")]
    VoiceKey {
        /// The voice, as `V:2`.
        voice: String,
    },
    /// Music for a voice that the header does not define.
    #[error("voice {voice} is not defined in the header")]
    UndefinedVoice {
        /// The voice, as `V:2`.
        voice: String,
    },
    /// A voice identifier that is not a number.
    #[error("voice {voice}: not `V:` and a number")]
    VoiceNumber {
        /// The voice as written.
        voice: String,
    },
    /// A voice whose text does not split into bars.
    #[error("voice {voice}: its text is not a sequence of bars and bar lines")]
    NotBars {
        /// The voice, as `V:2`.
        voice: String,
    },
    /// A line of interleaved ABC without one of the voices, or without bar line in one.
    #[error("line {line}: no bar for voice {voice}")]
    NotInterleaved {
        /// Of the piece, counted from 1.
        line: usize,
        /// The voice, as `V:2`.
        voice: String,
    },
    /// A piece that its interleaved form is not enough for.
    #[error("its interleaved form, moved to {key}, is not what the score is there: quotes or brackets do not match")]
    Interleaved {
        /// The signature.
        key: String,
    },
    /// Voices of different length.
    #[error("voice {voice} has {bars} bars, V:1 has {expected}")]
    UnequalBars {
        /// The voice, as `V:2`.
        voice: String,
        /// Its bars.
        bars: usize,
        /// The bars of the first voice.
        expected: usize,
    },
    /// Something in a chord's brackets that is no note.
    #[error("{}{text:?} has something that is not a note between its brackets", place(voice, *bar))]
    Chord {
        /// The voice, as `V:2`; empty when not known.
        voice: String,
        /// Counted from 1; 0 when not known.
        bar: usize,
        /// The chord.
        text: String,
    },
    /// A key outside the fifteen signatures and their modes.
    #[error("unknown key {key:?}")]
    UnknownKey {
        /// The key as written.
        key: String,
    },
    /// A note or chord symbol that cannot be spelled in the new key.
    #[error("{note:?} cannot be spelled in {key}")]
    Spelling {
        /// The note as written.
        note: String,
        /// The signature.
        key: String,
    },
    /// ABC without a note or a rest.
    #[error("{file}:{line}:1: no music: not a note or a rest up to here")]
    NoNotes {
        /// As the caller named it.
        file: String,
        /// The last line, counted from 1.
        line: usize,
    },
    /// Text that is no ABC.
    #[error("{file}:1:1: not ABC: it has none of the fields X, L, M, K and V")]
    NotAbc {
        /// As the caller named it.
        file: String,
    },
    /// More bars than any piece has.
    #[error("{file}:{line}:1: too many bars and voices")]
    TooLong {
        /// As the caller named it.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// A piece that a MIDI file cannot hold.
    #[error("{file}: {problem}")]
    Midi {
        /// As the caller named it.
        file: String,
        /// Why.
        problem: String,
    },
    /// Reduced ABC from which the rests cannot be found.
    #[error("cannot restore the rests: {0}")]
    Unreduce(&'static str),
}

fn place(voice: &str, bar: usize) -> String {
    if voice.is_empty() { String::new() } else { format!("voice {voice}, bar {bar}: ") }
}

fn prefix(name: &str, position: &crate::musicxml::SourcePosition) -> String {
    let position = position.to_string();
    [name, &position].iter().filter(|text| !text.is_empty()).map(|text| format!("{text}: ")).collect()
}

impl Error {
    /// A way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoScores { .. } => {
                Some("put one piece a file there: MusicXML (.mxl, .musicxml, .xml) or standard ABC (.abc)".into())
            }
            Error::Prompts { .. } => Some(
                "the first line is piece,period,composer,instrumentation; a piece is called as its file without the end; \
                 fields with commas stand in quotes (\"); no field has _ % [ or ]"
                    .into(),
            ),
            Error::Pack { .. } => Some("preprocess writes packed corpora: --pack FILE; remove what is damaged, and run it again".into()),
            Error::SameName { .. } => Some("rename one of them, or remove it".into()),
            Error::Interleaved { .. } => Some("mend them, or write all keys: keys: all".into()),
            Error::NoMusic => Some("pieces of one voice need `V:1` lines too, as xml2abc writes them".into()),
            _ => None,
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}
