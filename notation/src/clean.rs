//! Cleans standard ABC as the original does before it uses it.

use crate::barlines::BAR_LINES;
use crate::bars::music;
use crate::enclosed::{self, QUOTES};
use crate::text::strip;
use crate::transliterate::transliterate;
use crate::{Error, Result};

/// Fields to remove: number, titles, composers, lyrics, transcription notes, MIDI.
const REMOVED_FIELDS: [&str; 7] = ["X:", "T:", "C:", "W:", "w:", "Z:", "%%MIDI"];

/// Longer text annotations are removed.
const LONGEST_ANNOTATION: usize = 40;

/// The first part, before the voices are compared. Removes blank lines, fields, bar numbers at the ends of lines, and
/// quotes that contain bar lines; transliterates to ASCII.
///
/// # Errors
/// [`Error::NoMusic`]; [`Error::NotAscii`] for a character that has no transliteration.
pub fn fields(lines: &[String]) -> Result<Vec<String>> {
    let mut lines: Vec<String> = lines
        .iter()
        .filter(|line| !strip(line).is_empty())
        .map(|line| transliterate(line))
        .filter(|line| !REMOVED_FIELDS.iter().any(|field| line.starts_with(field)))
        .collect();
    check_ascii(&lines)?;

    let music = music(&lines)?;
    for line in &mut lines[music..] {
        remove_bar_number(line);
    }
    for line in &mut lines {
        let mut start = line.bytes();
        let field = start.next().is_some_and(|b| b.is_ascii_alphabetic()) && start.next() == Some(b':');
        if !field && !line.starts_with('%') {
            *line = line.replace("\\\"", "");
        }
    }
    for line in &mut lines {
        for quote in quotes(line) {
            for bar_line in BAR_LINES {
                if quote.contains(bar_line) {
                    *line = line.replace(&quote, "");
                }
            }
        }
    }
    Ok(lines)
}

/// The second part. Removes empty quotes and long text annotations, and shortens repeated signs in the others.
pub fn annotations(lines: &[String]) -> Vec<String> {
    let clean = |line: &String| {
        let mut line = line.clone();
        for quote in quotes(&line) {
            if quote == "\"\"" {
                line = line.replace(&quote, "");
            } else if quote.starts_with("\"^") || quote.starts_with("\"_") {
                let short = without_repeats(&quote);
                let fits = short.chars().count() <= LONGEST_ANNOTATION;
                line = line.replace(&quote, if fits { &short } else { "" });
            }
        }
        line
    };
    lines.iter().map(clean).collect()
}

fn quotes(line: &str) -> Vec<String> {
    enclosed::find(line, QUOTES).map(|range| line[range].to_owned()).collect()
}

/// Removes the number from `… | %12\n`.
fn remove_bar_number(line: &mut String) {
    // A line can end in two newlines if a character was transliterated to one.
    let ends = line.len() - line.bytes().rev().take_while(|b| *b == b'\n').count();
    let digits = line[..ends].bytes().rev().take_while(u8::is_ascii_digit).count();
    let newlines = line.len() - ends;
    if digits > 0 && (1..=2).contains(&newlines) && line[..ends - digits].ends_with('%') {
        line.replace_range(ends - digits - 1..ends, "");
    }
}

/// Shortens runs of the same sign (not of letters and digits) to one.
fn without_repeats(text: &str) -> String {
    let mut last = None;
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if last != Some(c) || c.is_ascii_alphanumeric() {
            result.push(c);
        }
        last = Some(c);
    }
    result
}

fn check_ascii(lines: &[String]) -> Result<()> {
    for (i, line) in lines.iter().enumerate() {
        if let Some((column, character)) = line.chars().enumerate().find(|(_, c)| !c.is_ascii()) {
            return Err(Error::NotAscii { line: i + 1, column: column + 1, character });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::lines;

    #[test]
    fn fields_numbers_and_quotes() {
        let text = "X:1\nT:Title\n%%score 1\n%%MIDI program 1\nK:C\nV:1 nm=\"a\\\"b\"\n\nV:1\n\"a|b\"A \"C\\\"\"B | %5\nw: la\n";
        assert_eq!(fields(&lines(text)).unwrap().concat(), "%%score 1\nK:C\nV:1 nm=\"a\\\"b\"\nV:1\nA \"C\"B | \n");
        assert!(matches!(fields(&lines("K:C\nA|\n")), Err(Error::NoMusic)));
    }

    #[test]
    fn annotation_texts() {
        let clean = |line: &str| annotations(&[line.to_owned()]).concat();
        assert_eq!(clean("\"\"A\"^....dim.....\"B\"C\"c"), "A\"^.dim.\"B\"C\"c");
        assert_eq!(clean(&format!("\"^{}\"A", "x".repeat(37))), format!("\"^{}\"A", "x".repeat(37)));
        assert_eq!(clean(&format!("\"_{}\"A", "x".repeat(38))), "A");
        assert_eq!(clean(&format!("\"{}\"A", "x".repeat(50))), format!("\"{}\"A", "x".repeat(50)));
    }

    #[test]
    fn bar_numbers_stand_at_the_end_only() {
        for (line, expected) in [("A|%12\n", "A|\n"), ("A|%12", "A|%12"), ("A|%12 \n", "A|%12 \n"), ("%5%6\n", "%5\n")]
        {
            let mut line = line.to_owned();
            remove_bar_number(&mut line);
            assert_eq!(line, expected);
        }
    }
}
