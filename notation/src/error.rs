use std::path::PathBuf;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a piece, or with the files and folders that hold pieces.
///
/// Most errors of a piece do not name its file; [`crate::preprocess`] adds it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A folder without scores.
    #[error("{}: no scores here", path.display())]
    NoScores {
        /// The folder.
        path: PathBuf,
    },
    /// Two scores with the same name, which would be written to the same files.
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
    /// `eval_split` is out of its range.
    #[error("eval_split is {value}: it must be at least 0 and at most 1")]
    EvalSplit {
        /// The value given.
        value: f64,
    },
    /// No place to write interleaved pieces to.
    #[error("neither a folder nor a packed corpus is given for the interleaved pieces")]
    NoOutput,
    /// A line of an index file that cannot be read.
    #[error("{}: line {line}: {problem}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A preprocessed piece that cannot be read.
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
    #[error("{}{}{problem}", named(name), named(&position.to_string()))]
    MusicXml {
        /// The name that the caller gave the score; may be empty.
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
    /// A `K:` line among a voice's header lines. The original fails on it.
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
    /// A line of interleaved ABC in which a voice is missing, or has no bar line.
    #[error("line {line}: no bar for voice {voice}")]
    NotInterleaved {
        /// The line of the piece, counted from 1.
        line: usize,
        /// The voice, as `V:2`.
        voice: String,
    },
    /// A piece whose interleaved form cannot be transposed as the score can: text in it reaches across bars.
    #[error(
        "its interleaved form, transposed to {key}, differs from the transposed score: quotes or brackets do not match"
    )]
    Interleaved {
        /// The key, by its signature.
        key: String,
    },
    /// Voices of different length.
    #[error("voice {voice} has {bars} bars, V:1 has {expected}")]
    UnequalBars {
        /// The voice, as `V:2`.
        voice: String,
        /// The number of its bars.
        bars: usize,
        /// The number of bars of the first voice.
        expected: usize,
    },
    /// Something other than a note between the brackets of a chord.
    #[error("{}{text:?} has something that is not a note between its brackets", bar_of_voice(voice, *bar))]
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
    /// A note or chord symbol that would need too many accidentals in the new key.
    #[error("{note:?} cannot be spelled in {key}")]
    Spelling {
        /// The note as written.
        note: String,
        /// The key, by its signature.
        key: String,
    },
    /// ABC without a note or a rest.
    #[error("{}no music: not a note or a rest up to here", line_start(file, *line))]
    NoNotes {
        /// The name that the caller gave; may be empty.
        file: String,
        /// The last line, counted from 1.
        line: usize,
    },
    /// Text that is not ABC.
    #[error("{}not ABC: it has none of the fields X, L, M, K and V", line_start(file, 1))]
    NotAbc {
        /// The name that the caller gave; may be empty.
        file: String,
    },
    /// More bars and voices than any piece has.
    #[error("{}too many bars and voices", line_start(file, *line))]
    TooLong {
        /// The name that the caller gave; may be empty.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// A piece that is too long for a MIDI file.
    #[error("{}{problem}", named(file))]
    Midi {
        /// The name that the caller gave; may be empty.
        file: String,
        /// Why.
        problem: String,
    },
    /// Reduced ABC into which the rests cannot be put back.
    #[error("cannot restore the rests: {0}")]
    Unreduce(&'static str),
}

fn bar_of_voice(voice: &str, bar: usize) -> String {
    if voice.is_empty() { String::new() } else { format!("voice {voice}, bar {bar}: ") }
}

/// A name and a colon; nothing for an empty name.
fn named(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}: ") }
}

/// The beginning of a line of a file.
fn line_start(file: &str, line: usize) -> String {
    if file.is_empty() { format!("line {line}, column 1: ") } else { format!("{file}:{line}:1: ") }
}

impl Error {
    /// A way out, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoScores { .. } => {
                Some("put scores there, one piece in a file: MusicXML (.mxl, .musicxml, .xml) or standard ABC (.abc)".into())
            }
            Error::Prompts { .. } => Some(
                "the first line is piece,period,composer,instrumentation; the name of a piece is its file's without the extension; \
                 put fields with commas in quotes (\"); no field may contain _ % [ or ]"
                    .into(),
            ),
            Error::Pack { .. } => Some("preprocess --pack FILE writes packed corpora; if the file is damaged, remove it and run preprocess again".into()),
            Error::SameName { .. } => Some("rename one of them, or remove it".into()),
            Error::Interleaved { .. } => Some("correct them, or write all keys: keys: all".into()),
            Error::NoMusic => Some("pieces of one voice need `V:1` lines too, as xml2abc writes them".into()),
            _ => None,
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}
