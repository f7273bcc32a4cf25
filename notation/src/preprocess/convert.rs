//! Converts one piece, in memory.

use std::borrow::Cow;
use std::path::Path;

use super::locate::locate;
use super::options::Keys;
use super::prompts::PiecePrompt;
use crate::musicxml::{self, MusicXmlOptions, MusicXmlWarning};
use crate::transpose::TransposablePiece;
use crate::{Error, Key, Result, alignment, augment, bars, clean, interleave, text};

/// A piece converted, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedPiece {
    /// The key as the header has it; `C` for `none`.
    pub key: String,
    /// Interleaved ABC.
    pub interleaved: String,
    /// Reduced ABC in each key asked for.
    pub reduced: Vec<(Key, String)>,
    /// Voices.
    pub voices: usize,
    /// Bars.
    pub bars: usize,
}

/// A score's bytes as standard ABC: MusicXML, plain or compressed, is converted, with warnings. Which of the
/// two it is, its first bytes say.
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
/// Says what about the piece is wrong, without its file.
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

/// What cannot be moved as it is read, to the same text in every key, is refused here, and not in the middle of a
/// training: quotes that are open across bars, for one, say more in the score than interleaved.
fn check_moves(movable: &TransposablePiece, interleaved: &str) -> Result<()> {
    let loaded = augment::movable(interleaved)?;
    for key in Key::ALL {
        if movable.reduced(key)? != loaded.reduced(key).unwrap_or_default() {
            return Err(Error::Interleaved { key: key.name().to_owned() });
        }
    }
    Ok(())
}

/// Why a piece is refused: its file, the place where one is known, and what is wrong.
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
