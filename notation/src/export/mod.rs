//! Converts ABC to MusicXML and MIDI.

mod instruments;
mod marks;
mod midi;
mod musicxml;
mod notes;
mod part;
mod playback;
mod timing;
mod xml;

use crate::Result;
use crate::abc::{self, AbcWarning};

pub use timing::PlayTimes;

/// A converted piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported<T> {
    /// The contents of the file.
    pub output: T,
    /// What was wrong with the piece, and what was done.
    pub warnings: Vec<AbcWarning>,
}

/// Converts a piece to MusicXML 4.0 (partwise). The text is standard or interleaved ABC, also as NotaGen writes it, without
/// the bars of resting voices. `name` is the file's name in warnings and errors.
///
/// # Errors
/// As [`abc::parse`].
///
/// ```
/// let written = "L:1/8\nM:2/4\nK:G\nV:1\nV:2\n[r:0/1][V:1]G4|\n[r:1/0][V:2]B4|]\n";
/// let exported = notation::export::to_musicxml(written, "piece.abc")?;
/// assert!(exported.output.contains("<step>G</step>") && exported.warnings.is_empty());
/// # Ok::<(), notation::Error>(())
/// ```
pub fn to_musicxml(text: &str, name: &str) -> Result<Exported<String>> {
    let score = abc::parse(text, name)?;
    Ok(Exported { output: musicxml::write(&score), warnings: score.warnings })
}

/// Converts a piece to a Standard MIDI File (format 1), with a track for the tempo and one for each voice. Repeats and
/// endings are played out. The text is as for [`to_musicxml`].
///
/// # Errors
/// As [`abc::parse`], and [`crate::Error::Midi`].
pub fn to_midi(text: &str, name: &str) -> Result<Exported<Vec<u8>>> {
    let score = abc::parse(text, name)?;
    Ok(Exported { output: midi::write(&score, name)?, warnings: score.warnings })
}

/// When the bars are played in the file of [`to_midi`].
///
/// # Errors
/// As [`abc::parse`].
///
/// ```
/// let tune = "L:1/4\nM:4/4\nQ:1/4=60\nK:C\nV:1\nV:1\n|: C4 :| D4 |]\n";
/// let times = notation::export::times(tune, "tune.abc")?;
/// assert_eq!(times.bars, [(0, 0.0), (0, 4.0), (1, 8.0)]);
/// assert_eq!(times.seconds, 12.0);
/// # Ok::<(), notation::Error>(())
/// ```
pub fn times(text: &str, name: &str) -> Result<PlayTimes> {
    Ok(timing::times(&abc::parse(text, name)?))
}
