//! Converts one piece, in memory.

use std::borrow::Cow;
use std::path::Path;

use super::locate::locate;
use super::options::Keys;
use super::prompts::PiecePrompt;
use crate::musicxml::{self, MusicXmlOptions, MusicXmlWarning};
use crate::transpose::TransposablePiece;
use crate::{Error, Key, Result, alignment, augment, bars, clean, interleave, text};

/// A converted piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedPiece {
    /// The original key as in the header; `C` for `none`.
    pub key: String,
    /// Interleaved ABC.
    pub interleaved: String,
    /// Reduced ABC in each requested key.
    pub reduced: Vec<(Key, String)>,
    /// The number of voices.
    pub voices: usize,
    /// The number of bars.
    pub bars: usize,
}

/// Decodes a score to standard ABC. MusicXML, plain or compressed, is recognised by its first bytes and converted; it may
/// have warnings.
///
/// # Errors
/// [`Error::MusicXml`] and [`Error::Encoding`].
pub fn standard(bytes: &[u8]) -> Result<(Cow<'_, str>, Vec<MusicXmlWarning>)> {
    if musicxml::looks_like(bytes) {
        let converted = musicxml::to_abc(bytes, "", &MusicXmlOptions::default())?;
        return Ok((Cow::Owned(converted.abc), converted.warnings));
    }
    Ok((Cow::Borrowed(text::decode(bytes)?), Vec::new()))
}

/// Converts one piece, MusicXML or standard ABC.
///
/// # Errors
/// Says what is wrong with the piece, without naming its file.
///
/// ```
/// use notation::preprocess::{Keys, convert};
///
/// let score = "X:1\nT:Piece\nL:1/8\nK:G\nV:1\nV:2\nV:1\n G8 | z8 |]\nV:2\n z8 | B8 |]\n";
/// let piece = convert(score.as_bytes(), Keys::All)?;
/// assert_eq!(piece.interleaved, "L:1/8\nK:G\nV:1\nV:2\n[V:1]G8|[V:2]z8|\n[V:1]z8|][V:2]B8|]\n");
/// let (key, reduced) = &piece.reduced[1];
/// assert_eq!(key.name(), "C");
/// assert!(reduced.ends_with("[V:1]c8|\n[V:2]e8|]\n"));
/// # Ok::<(), notation::Error>(())
/// ```
pub fn convert(bytes: &[u8], keys: Keys) -> Result<ConvertedPiece> {
    convert_standard(&standard(bytes)?.0, keys, None)
}

/// Converts one piece of standard ABC.
pub(super) fn convert_standard(abc: &str, keys: Keys, prompt: Option<&PiecePrompt>) -> Result<ConvertedPiece> {
    let lines = clean::fields(&text::lines(abc))?;
    let found = bars::bars(&lines)?;
    let aligned = alignment::check_bars(&found)?;
    let (voices, bars) = (found.voices.len(), found.voices[0].bars.len());
    if !aligned.bar_numbers {
        let other = found.voices.iter().find(|voice| voice.bars.len() != bars);
        return Err(Error::UnequalBars {
            voice: other.map(|voice| voice.symbol.clone()).unwrap_or_default(),
            bars: other.map_or(0, |voice| voice.bars.len()),
            expected: bars,
        });
    }
    let lines: Vec<String> =
        prompt.iter().flat_map(|prompt| prompt.lines()).chain(clean::annotations(&lines)).collect();
    let key = match bars::header(&bars::voices(&lines)?.header)?.key {
        key if key == "none" => "C".to_owned(),
        key => key,
    };
    let interleaved = interleave::interleave(&lines)?.concat();
    let own = Key::of_mode(&key)?;
    let movable = TransposablePiece::new(&lines)?;
    if keys == Keys::None {
        check_moves(&movable, &interleaved)?;
    }
    let reduced = keys.of(own).into_iter().map(|key| Ok((key, movable.reduced(key)?)));
    Ok(ConvertedPiece { key, interleaved, reduced: reduced.collect::<Result<_>>()?, voices, bars })
}

/// Refuses a piece that cannot be transposed while it is read. Its interleaved form must give the same text in every key
/// as the score does. It does not if, for example, a quotation mark is closed in a later bar.
fn check_moves(movable: &TransposablePiece, interleaved: &str) -> Result<()> {
    let loaded = augment::movable(interleaved)?;
    for key in Key::ALL {
        if movable.reduced(key)? != loaded.reduced(key).unwrap_or_default() {
            return Err(Error::Interleaved { key: key.name().to_owned() });
        }
    }
    Ok(())
}

/// Why a piece is refused: the file, the line and column if they are known, and what is wrong.
pub(super) fn refusal(path: &Path, bytes: &[u8], error: &Error) -> String {
    let place = match standard(bytes) {
        Ok((Cow::Borrowed(abc), _)) => locate(abc, error),
        _ => None,
    };
    match place {
        Some((line, column)) => format!("{}:{line}:{column}: {error}", path.display()),
        None => format!("{}: {error}", path.display()),
    }
}
