//! ABC to what others read: MusicXML and MIDI.

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

/// What a piece was made into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported<T> {
    /// The file's contents.
    pub output: T,
    /// What was wrong with the piece, and what was made of it.
    pub warnings: Vec<AbcWarning>,
}

/// A piece as MusicXML 4.0 (partwise), from standard or interleaved ABC; also from NotaGen's own text, in
/// which bars of resting voices are left out. `name` is for warnings.
///
/// # Errors
/// As [`abc::parse`].
pub fn to_musicxml(text: &str, name: &str) -> Result<Exported<String>> {
    let score = abc::parse(text, name)?;
    Ok(Exported { output: musicxml::write(&score), warnings: score.warnings })
}

/// A piece as a Standard MIDI File (format 1): a track for the tempo and one for each voice, repeats and
/// endings played out. From the same text as [`to_musicxml`].
///
/// # Errors
/// As [`abc::parse`], and [`crate::Error::Midi`].
pub fn to_midi(text: &str, name: &str) -> Result<Exported<Vec<u8>>> {
    let score = abc::parse(text, name)?;
    Ok(Exported { output: midi::write(&score, name)?, warnings: score.warnings })
}

/// When the bars of [`to_midi`]'s file are played.
///
/// # Errors
/// As [`abc::parse`].
pub fn times(text: &str, name: &str) -> Result<PlayTimes> {
    Ok(timing::times(&abc::parse(text, name)?))
}
