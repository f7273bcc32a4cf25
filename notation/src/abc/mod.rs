//! Parses ABC: standard ABC (one voice after another) and NotaGen's interleaved ABC (a line for each bar), with or without
//! the bars of resting voices.
//!
//! The dialect is that of `xml2abc`. If something is wrong with a piece, the rest of it is read, and
//! [`AbcScore::warnings`] says what is wrong where, and what was done. In the result all voices have the same bars: missing
//! bars are added, and short bars get a rest at the end. No note is left out or shortened. Time and memory are linear in
//! the length of the text.

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

/// Parses a piece. `file` is the name in warnings and errors.
///
/// # Errors
/// [`crate::Error::NotAbc`]; [`crate::Error::NoNotes`] if it has neither a note nor a rest; [`crate::Error::TooLong`].
///
/// ```
/// use notation::abc::parse;
///
/// let score = parse("X:1\nM:2/4\nK:C\nV:1\nV:2\nV:1\nC4|D2|\nV:2\nE4|F4|\n", "tune.abc")?;
/// assert_eq!(score.lengths.len(), 2);
/// assert_eq!(
///     score.warnings[0].to_string(),
///     "tune.abc:7:4: voice V:1, bar 2: 1/4 long, not 1/2; filled with a rest"
/// );
/// # Ok::<(), notation::Error>(())
/// ```
pub fn parse(text: &str, file: &str) -> Result<AbcScore> {
    reader::read(text, file)
}
