//! Transposes and reduces an interleaved piece while it is read. The text is the same as in the files of the augmented
//! folders, byte for byte.

use crate::barlines;
use crate::text::words;
use crate::transpose::TransposablePiece;
use crate::{Error, Key, Result};

/// An interleaved piece, transposed to a key and reduced.
///
/// # Errors
/// [`Error::NotInterleaved`] names the line and the voice that is wrong; other errors are those of [`crate::transpose`]
/// and [`crate::rests`].
///
/// ```
/// use notation::{Key, augment};
///
/// let piece = "K:C\nV:1\nV:2\n[V:1]C4|[V:2]z4|\n[V:1]z4|[V:2]E4|]\n";
/// let in_d = augment::reduced(piece, Key::from_name("D").unwrap())?;
/// assert_eq!(in_d, "K:D\nV:1\nV:2\n[V:1]D4|\n[V:2]F4|]\n");
/// # Ok::<(), notation::Error>(())
/// ```
pub fn reduced(interleaved: &str, to: Key) -> Result<String> {
    movable(interleaved)?.reduced(to)
}

pub(crate) fn movable(interleaved: &str) -> Result<TransposablePiece> {
    TransposablePiece::new(&standard(interleaved)?)
}

/// The piece as standard ABC, each voice in one line, in the order of the voices in a bar. The original's way back,
/// [`crate::interleave::uninterleave`], sorts the voices and loses line ends.
fn standard(interleaved: &str) -> Result<Vec<String>> {
    let lines: Vec<&str> = interleaved.split_inclusive('\n').collect();
    let missing = |line: usize, voice: &str| Error::NotInterleaved { line: line + 1, voice: voice.to_owned() };
    let start = lines.iter().position(|line| line.starts_with("[V:1]"));
    let start = start.ok_or_else(|| missing(lines.len().saturating_sub(1), "V:1"))?;
    let (header, body) = lines.split_at(start);
    let symbols: Vec<&str> =
        header.iter().filter(|line| line.starts_with("V:")).filter_map(|line| words(line).next()).collect();

    let mut voices: Vec<(&str, String)> = Vec::new();
    let mut voice = 0;
    for (i, line) in body.iter().enumerate() {
        let mut rest = line.trim_end_matches('\n');
        if mark(rest, &symbols).is_some() {
            voice = all_there(&voices, voice).map_err(|symbol| missing(start + i - 1, symbol))?;
        } else if let Some((_, text)) = voice.checked_sub(1).and_then(|voice| voices.get_mut(voice)) {
            // Fields before the first bar line may be on lines of their own.
            let end = next_mark(rest, &symbols);
            text.extend(["\n", &rest[..end]]);
            rest = &rest[end..];
        }
        while let Some((symbol, after)) = mark(rest, &symbols) {
            let end = next_mark(after, &symbols);
            if i == 0 {
                voices.push((symbol, String::from(" ")));
            }
            let expected = voices.get(voice).map_or(symbol, |(known, _)| *known);
            let text = voices.get_mut(voice).filter(|(known, _)| *known == symbol).map(|(_, text)| text);
            // The space keeps the number of an ending apart from the bar after it.
            text.ok_or_else(|| missing(start + i, expected))?.extend([" ", &after[..end]]);
            rest = &after[end..];
            voice += 1;
        }
    }
    all_there(&voices, voice).map_err(|symbol| missing(lines.len() - 1, symbol))?;

    let mut standard: Vec<String> =
        header.iter().filter(|line| **line != "\n").map(|line| (*line).to_owned()).collect();
    for (symbol, mut text) in voices {
        if barlines::split(&text).last().is_some_and(|rest| !rest.trim().is_empty()) {
            // The text after the last bar line is the number of an ending. Alone it would be read as a bar without bar line.
            text.push_str(" x");
        }
        text.push('\n');
        standard.extend([format!("{symbol}\n"), text]);
    }
    Ok(standard)
}

/// Checks that a line has all voices, and returns 0, the first voice of the next line; or the voice that is missing.
fn all_there<'a>(voices: &[(&'a str, String)], count: usize) -> Result<usize, &'a str> {
    if count == 0 { Ok(0) } else { voices.get(count).map_or(Ok(0), |(symbol, _)| Err(symbol)) }
}

/// The voice of the mark that the text begins with, such as `[V:2]`, and the text after the mark.
fn mark<'a>(text: &'a str, symbols: &[&str]) -> Option<(&'a str, &'a str)> {
    let text = text.strip_prefix('[')?;
    let symbol =
        symbols.iter().find(|symbol| text.strip_prefix(**symbol).is_some_and(|after| after.starts_with(']')))?;
    Some((&text[..symbol.len()], &text[symbol.len() + 1..]))
}

/// The byte at which the next voice's mark begins, or the end of the text.
fn next_mark(text: &str, symbols: &[&str]) -> usize {
    let mut marks = text.match_indices("[V:").map(|(at, _)| at);
    marks.find(|at| mark(&text[*at..], symbols).is_some()).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Keys, convert};

    /// Bar lines that are there twice, endings, a voice order of its own, fields before the first bar line.
    const PIECE: &str = "%%score { 2 1 }\nL:1/8\nK:G\nV:2 bass\nV:1 treble\nV:1\n[K:D] |: ^f=c | |1 .c2 d :|2\n 3c\nd |]\n\
                         V:2\n|: z4 | G,4 :|2 x4 |]\n";

    #[test]
    fn the_same_as_from_the_score() {
        let piece = convert(PIECE.as_bytes(), Keys::All).unwrap();
        for (key, text) in piece.reduced {
            assert_eq!(reduced(&piece.interleaved, key).unwrap(), text, "{}", key.name());
        }
    }

    #[test]
    fn what_is_not_interleaved_is_named() {
        let interleaved = "K:C\nV:1\nV:2\n[V:1]A|[V:2]B|\n[V:2]c|\n";
        let error = |text: &str| reduced(text, Key::ALL[1]).unwrap_err().to_string();
        assert_eq!(error(interleaved), "line 5: no bar for voice V:1");
        assert_eq!(error(&interleaved.replace("[V:2]c|", "[V:1]c|")), "line 5: no bar for voice V:2");
        assert_eq!(error("K:C\nV:1\nV:1\nA|\n"), "line 4: no bar for voice V:1");
        assert_eq!(error(&format!("{interleaved}[V:1]c|\n")), "line 5: no bar for voice V:1");
        assert_eq!(error("K:C\nV:1\nV:2\n[V:1]A|[V:2]B|\n[V:1]c|\n"), "line 5: no bar for voice V:2");
        assert!(reduced(&format!("K:C\nV:1\n[V:1]{}|\n", "[V:".repeat(100_000)), Key::ALL[1]).is_ok());
    }
}
