//! Checks that the voices of a piece match, bar by bar.

use crate::bars::{PieceBars, bars};
use crate::duration::{Duration, bar_duration};
use crate::interleave::interleaved_bars;
use crate::{Error, Result};

/// In what the voices of a piece match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// They have the same bar lines at the same places.
    pub bar_lines: bool,
    /// They have the same number of bars.
    pub bar_numbers: bool,
    /// Every bar lasts as long as in the first voice. Bars after one of unknown length are not compared.
    pub durations: bool,
}

/// Checks standard ABC.
///
/// # Errors
/// The piece does not split into bars, a chord holds something other than notes, or a voice has fewer bars than the
/// first.
///
/// ```
/// let lines = notation::text::lines("K:C\nV:1\nV:2\nV:1\nA2|B2|]\nV:2\nc2|d3|]\n");
/// let alignment = notation::alignment::check(&lines)?;
/// assert!(alignment.bar_lines && alignment.bar_numbers && !alignment.durations);
/// # Ok::<(), notation::Error>(())
/// ```
pub fn check(lines: &[String]) -> Result<Alignment> {
    check_bars(&bars(lines)?)
}

/// Checks interleaved ABC that has its rests.
///
/// # Errors
/// As [`check`]; [`Error::NotInterleaved`].
pub fn check_interleaved(lines: &[String]) -> Result<Alignment> {
    check_bars(&interleaved_bars(lines)?)
}

/// Checks the bars of a piece, as `abctoolkit.check` does.
///
/// # Errors
/// As [`check`].
pub fn check_bars(bars: &PieceBars) -> Result<Alignment> {
    let voices = &bars.voices;
    let first = voices.iter().find(|voice| voice.symbol == "V:1").ok_or(Error::NoMusic)?;
    let mut alignment = Alignment {
        bar_lines: voices.iter().all(|voice| voice.left == first.left && voice.right == first.right),
        bar_numbers: voices.iter().all(|voice| voice.bars.len() == first.bars.len()),
        durations: true,
    };
    for i in 0..first.bars.len() {
        let length = |symbol: &str, bar: &str| -> Result<Option<Duration>> {
            bar_duration(bar).map_err(|error| match error {
                Error::Chord { text, .. } => Error::Chord { voice: symbol.to_owned(), bar: i + 1, text },
                other => other,
            })
        };
        let expected = length("V:1", &first.bars[i])?;
        if expected.is_none() {
            alignment.durations = false;
            break;
        }
        for voice in voices.iter().filter(|voice| voice.symbol != "V:1") {
            let bar = voice.bars.get(i).ok_or_else(|| Error::UnequalBars {
                voice: voice.symbol.clone(),
                bars: voice.bars.len(),
                expected: first.bars.len(),
            })?;
            alignment.durations &= length(&voice.symbol, bar)? == expected;
        }
    }
    Ok(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::lines;

    #[test]
    fn each_kind_of_difference() {
        let check = |first: &str, second: &str| {
            check(&lines(&format!("K:C\nV:1\nV:2\nV:1\n{first}\nV:2\n{second}\n")))
                .map(|a| [a.bar_lines, a.bar_numbers, a.durations])
        };
        assert_eq!(check("A2|B2|]", "c2|d2|]").unwrap(), [true, true, true]);
        assert_eq!(check("A2|B2|]", "c2|d2||").unwrap(), [false, true, true]);
        assert_eq!(check("A2|B2|]", "c2|d3|]").unwrap(), [true, true, false]);
        assert_eq!(check("A2|]", "c2|d3|]").unwrap(), [false, false, true]);
        assert_eq!(check("A2|B2|]", "c2|]").unwrap_err().to_string(), "voice V:2 has 1 bars, V:1 has 2");
        assert_eq!(
            check("A2|B2|]", "c2|[ce2]|]").unwrap_err().to_string(),
            "voice V:2, bar 2: \"[ce2]\" has something that is not a note between its brackets"
        );
    }
}
