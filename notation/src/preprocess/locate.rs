//! Finds the place of an error in a score of standard ABC.

use crate::Error;
use crate::text::{strip, words};

/// The line and column of an error in a score, counted from 1, if they can be found. The error itself is about the cleaned
/// text, which has other lines.
pub fn locate(abc: &str, error: &Error) -> Option<(usize, usize)> {
    let lines: Vec<&str> = abc.lines().collect();
    let music = lines.iter().rposition(|line| strip(line) == "V:1");
    let start = music.unwrap_or(lines.len());
    let body = &lines[start..];
    match error {
        Error::UnequalBars { voice, .. } => {
            let at = body.iter().rposition(|line| strip(line) == voice.as_str())?;
            // The end of the voice, which is too early or too late.
            let music = body[at + 1..].iter().take_while(|line| !line.starts_with("V:") && !strip(line).is_empty());
            Some((start + at + 1 + music.count(), 1))
        }
        Error::NotBars { voice } | Error::UndefinedVoice { voice } => {
            let at = body.iter().rposition(|line| strip(line) == voice.as_str())?;
            // Its music begins on the next line.
            Some((start + at + if matches!(error, Error::UndefinedVoice { .. }) { 1 } else { 2 }, 1))
        }
        Error::VoiceKey { voice } => {
            let at = lines.iter().position(|line| line.starts_with("V:") && words(line).next() == Some(voice))?;
            let key = lines[at..].iter().position(|line| line.starts_with("K:"))?;
            Some((at + key + 1, 1))
        }
        Error::Chord { voice, text, .. } => {
            let at = body.iter().rposition(|line| strip(line) == voice.as_str()).unwrap_or_default();
            find(&body[at..], text).map(|(line, column)| (start + at + line, column))
        }
        Error::UnknownKey { key } => find(&lines, &format!("K:{key}")),
        Error::Spelling { note, .. } => find(body, note).map(|(line, column)| (start + line, column)),
        Error::NotAscii { character, .. } => find(&lines, &character.to_string()),
        Error::NoKey | Error::NoVoices => {
            lines.iter().position(|line| line.starts_with("V:")).map(|line| (line + 1, 1))
        }
        _ => None,
    }
}

/// The line and column where a text first occurs, counted from 1.
fn find(lines: &[&str], text: &str) -> Option<(usize, usize)> {
    let (line, at) = lines.iter().enumerate().find_map(|(i, line)| Some((i, line.find(text)?)))?;
    Some((line + 1, 1 + lines[line][..at].chars().count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Keys, convert};

    #[test]
    fn refusals_have_line_and_column() {
        const PIECE: &str =
            "X:1\nT:PieceReport\nL:1/8\nK:G\nV:1 treble\nV:2 bass\nV:1\n A2 | [Bd] |]\nV:2\n c2 |\n [ce] |]\n";
        for (from, to, expected) in [
            ("\n [ce] |]", "", (10, 1)),
            ("\n [ce] |]", "\n [ce] |\n d |]", (12, 1)),
            (" c2 |\n [ce] |]", " c2", (10, 1)),
            ("[ce]", "[c2e2]", (11, 2)),
            ("V:2\n", "V:3\n", (9, 1)),
            ("K:G", "K:H", (4, 1)),
            ("K:G\n", "", (4, 1)),
            ("bass\n", "bass\nK:D\n", (7, 1)),
        ] {
            let piece = PIECE.replacen(from, to, 1);
            let error = convert(piece.as_bytes(), Keys::All).unwrap_err();
            assert_eq!(locate(&piece, &error), Some(expected), "{error} in\n{piece}");
        }
        assert_eq!(locate("K:C\n", &Error::NoMusic), None);
    }
}
