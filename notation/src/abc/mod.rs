//! ABC, parsed: standard ABC (one voice after another), and the interleaved ABC of NotaGen (a line a bar),
//! with the bars of resting voices in it or left out.
//!
//! The dialect is the one that `xml2abc` writes. Whatever is wrong with a piece, the rest of it is read:
//! [`AbcScore::warnings`] names line, column, voice and bar, and says what was made of it. Afterwards all
//! voices have the same bars: bars that a voice lacks are put in, and bars that are too short get a rest
//! at their end. No note is left out or made shorter. Time and memory are linear in the length of the text.

mod diagnostics;
mod fields;
mod header;
mod layout;
mod lyrics;
mod music;
mod reader;
mod repair;
mod scan;
pub mod score;
mod voice;

pub use diagnostics::{AbcWarning, LineColumn};
pub use score::AbcScore;

use crate::Result;

/// Parses a piece. `file` is for warnings and errors.
///
/// # Errors
/// [`crate::Error::NotAbc`], [`crate::Error::NoNotes`] if there is not a single note or rest in it, or
/// [`crate::Error::TooLong`].
pub fn parse(text: &str, file: &str) -> Result<AbcScore> {
    reader::read(text, file)
}
