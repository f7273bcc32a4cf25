//! Leaves out the bars of resting voices, as NotaGen trains without them, and puts them back.

use crate::barlines;
use crate::bars::{VoiceTexts, voices};
use crate::duration::{Duration, bar_duration};
use crate::interleave::{interleave_voices, sorted_symbols};
use crate::text::{filled_lines, words};
use crate::{Error, Result};

/// Interleaves standard ABC without the bars of voices that only rest.
///
/// # Errors
/// As [`crate::interleave::interleave`].
///
/// ```
/// let standard = "%%score 1 2\nK:C\nV:1\nV:2\nV:1\n A4 | z4 |]\nV:2\n z4 | c4 |]\n";
/// let reduced = notation::rests::reduce(&notation::text::lines(standard))?.concat();
/// assert!(reduced.ends_with("[V:1]A4|\n[V:2]c4|]\n"));
///
/// let full = notation::rests::unreduce_text(&reduced)?;
/// assert!(full.ends_with("[V:1]A4|[V:2]z4|\n[V:1]z4|][V:2]c4|]\n"));
/// # Ok::<(), notation::Error>(())
/// ```
pub fn reduce(lines: &[String]) -> Result<Vec<String>> {
    reduce_voices(&voices(lines)?)
}

pub(crate) fn reduce_voices(voices: &VoiceTexts) -> Result<Vec<String>> {
    // As in the original, the letters of text and decorations count as notes.
    let sounds = |bar: &str| bar.chars().any(|c| c.is_alphabetic() && !"ZzXx".contains(c));
    interleave_voices(voices, sounds)
}

/// Puts the rests back into a text that NotaGen wrote, with stream tags `[r:i/n]`. The result is what the original writes
/// to its `interleaved` folder.
///
/// # Errors
/// As [`unreduce`].
pub fn unreduce_text(text: &str) -> Result<String> {
    Ok(unreduce(&filled_lines(text))?.concat())
}

/// Adds a rest to reduced interleaved ABC for every voice that a line leaves out, and removes stream tags. The rest has
/// the length that most bars of the line have.
///
/// # Errors
/// Where the original fails too: voices without numbers, no `%%score` line or an empty group in it, or no bar whose
/// length or bar line the first rest could have.
pub fn unreduce(lines: &[String]) -> Result<Vec<String>> {
    let (header, body) = match lines.iter().position(|line| line.contains("[V:")) {
        Some(start) => lines.split_at(start),
        None => (lines, lines),
    };
    let hidden = hidden_voices(header)?;
    let symbols = sorted_symbols(header)?;

    let mut result = header.to_vec();
    // A line in which they are unknown takes those of the line before.
    let mut length: Option<Duration> = None;
    let mut bar_line: Option<String> = None;
    for (i, line) in body.iter().enumerate() {
        let line = without_tag(line);
        let voices = voices_of(line);
        let mut counts: Vec<(Duration, usize)> = Vec::new();
        for (_, text) in &voices {
            let elements = barlines::split(text);
            let right = elements[elements.len().saturating_sub(2)..].concat();
            let bar = &text[..text.len() - right.len()];
            bar_line = Some(right);
            if let Ok(Some(length)) = bar_duration(bar) {
                match counts.iter_mut().find(|(known, _)| *known == length) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((length, 1)),
                }
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max();
        if let Some((found, _)) = counts.into_iter().find(|(_, count)| Some(*count) == most) {
            length = Some(found);
        }
        let prefix = if i == 0 { line.split("[V:").next().unwrap_or_default() } else { "" };

        let mut full = String::new();
        for symbol in &symbols {
            full.extend(["[", symbol, "]"]);
            if let Some((_, text)) = voices.iter().find(|(known, _)| known == symbol) {
                full.push_str(text);
            } else {
                let rest = if hidden.contains(symbol) { "x" } else { "z" };
                let length = length.as_ref().ok_or(Error::Unreduce("no bar before says how long a rest is"))?;
                let bar_line = bar_line.as_ref().ok_or(Error::Unreduce("no bar before has a bar line"))?;
                full.extend([prefix, rest, &length.to_string(), bar_line]);
            }
        }
        full.push('\n');
        result.push(full);
    }
    Ok(result)
}

/// The voices whose rests are invisible: all but the first of each group in round brackets of `%%score`.
fn hidden_voices(header: &[String]) -> Result<Vec<String>> {
    let mut groups: Vec<Vec<&str>> = Vec::new();
    let mut grouped: Option<Vec<&str>> = None;
    for line in header {
        if line.starts_with("%%score") {
            let mut rest = line.trim_end_matches('\n');
            while let Some((_, after)) = rest.split_once('(') {
                let Some((group, after)) = after.split_once(')') else { break };
                groups.push(words(group).collect());
                rest = after;
            }
            grouped = Some(groups.concat());
        }
        if line.starts_with("V:") {
            let number = &words(line).next().unwrap_or_default()[2..];
            let grouped = grouped.as_ref().ok_or(Error::Unreduce("no %%score line before the voices"))?;
            if !grouped.contains(&number) {
                groups.push(vec![number]);
            }
        }
    }
    let mut hidden: Vec<String> = Vec::new();
    let mut shown: Vec<&str> = Vec::new();
    for group in groups {
        let (first, others) = group.split_first().ok_or(Error::Unreduce("an empty group in %%score"))?;
        shown.push(first);
        hidden.extend(others.iter().map(|number| format!("V:{number}")));
    }
    hidden.retain(|symbol| !shown.contains(&&symbol[2..]));
    Ok(hidden)
}

fn without_tag(line: &str) -> &str {
    line.strip_prefix("[r:").and_then(|rest| rest.split_once(']')).map_or(line, |(_, rest)| rest)
}

/// The voices of a line, each with the text up to the next mark `[V:n]`. A voice that occurs twice has its last text, at
/// its first place.
fn voices_of(line: &str) -> Vec<(String, &str)> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let mut voices: Vec<(String, &str)> = Vec::new();
    let mut from = 0;
    while let Some(start) = line[from..].find("[V:").map(|at| from + at) {
        from = start + 3;
        let digits = line[from..].find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let text = from + digits + 1;
        if digits == 0 || !line[from + digits..].starts_with(']') {
            continue;
        }
        let end = line[text..].find("[V:").map_or(line.len(), |at| text + at);
        if line[text..end].contains('\n') {
            continue;
        }
        let symbol = line[start + 1..text - 1].to_owned();
        match voices.iter_mut().find(|(known, _)| *known == symbol) {
            Some(voice) => voice.1 = &line[text..end],
            None => voices.push((symbol, &line[text..end])),
        }
        from = end;
    }
    voices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::lines;

    const REDUCED: &str = "%%score { ( 1 2 ) | 3 }\nK:C\nV:1\nV:2\nV:3\n[r:0/2][V:1]A4|[V:3]c4|\n[r:1/1][V:3]d3|\n\
                           [r:2/0][V:2]e2|]\n";

    #[test]
    fn rests_come_back() {
        assert_eq!(
            unreduce_text(REDUCED).unwrap(),
            "%%score { ( 1 2 ) | 3 }\nK:C\nV:1\nV:2\nV:3\n[V:1]A4|[V:2]x4|[V:3]c4|\n[V:1]z3|[V:2]x3|[V:3]d3|\n\
             [V:1]z2|][V:2]e2|][V:3]z2|]\n"
        );
    }

    #[test]
    fn a_line_with_no_known_length_takes_the_last_one() {
        let text = REDUCED.replace("d3|", "[d2]e|");
        assert!(unreduce_text(&text).unwrap().contains("[V:1]z4|[V:2]x4|[V:3][d2]e|\n"));
    }

    #[test]
    fn failures_of_the_original_are_errors() {
        for (from, to) in [("%%score", "%%x"), ("( 1 2 )", "( )"), ("V:2\n", "V:two\n")] {
            assert!(unreduce_text(&REDUCED.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(unreduce_text("%%score 1\nV:1\nV:2\n[V:9\n").is_err());
    }

    #[test]
    fn resting_bars_are_left_out() {
        let text = "K:C\nV:1\nV:2\nV:1\nA4|z4|\"^p\"z4|\nV:2\nx4|Z|c4|\n";
        assert_eq!(reduce(&lines(text)).unwrap().concat(), "K:C\nV:1\nV:2\n[V:1]A4|\n\n[V:1]\"^p\"z4|[V:2]c4|\n");
    }
}
