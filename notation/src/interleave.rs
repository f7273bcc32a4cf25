//! Converts standard ABC to interleaved ABC, with a line for each bar (`[V:1]…|[V:2]…|`), and back.

use crate::barlines;
use crate::bars::{PieceBars, VoiceBars, VoiceTexts, ending, split, voices};
use crate::text::{integer, strip, words};
use crate::{Error, Result};

/// Interleaves standard ABC. Every line has all voices.
///
/// # Errors
/// The piece does not split into bars, or a voice has fewer bars than the first.
///
/// ```
/// let standard = "L:1/8\nK:C\nV:1\nV:2\nV:1\n A2 | B2 |]\nV:2\n c2 | d2 |]\n";
/// let interleaved = notation::interleave::interleave(&notation::text::lines(standard))?;
/// assert_eq!(interleaved.concat(), "L:1/8\nK:C\nV:1\nV:2\n[V:1]A2|[V:2]c2|\n[V:1]B2|][V:2]d2|]\n");
/// # Ok::<(), notation::Error>(())
/// ```
pub fn interleave(lines: &[String]) -> Result<Vec<String>> {
    interleave_voices(&voices(lines)?, |_| true)
}

/// Interleaves, leaving out the bars of a voice for which `keep` is false.
pub(crate) fn interleave_voices(voices: &VoiceTexts, keep: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let split = split(voices)?;
    let mut lines: Vec<String> = voices.header.iter().map(|line| ended(line)).collect();
    let count = match split.iter().find(|(symbol, _)| *symbol == "V:1") {
        Some((_, first)) if first.count > 0 => first.count,
        _ => return Err(Error::NotBars { voice: "V:1".into() }),
    };
    for i in 0..count {
        let mut line = String::new();
        for (symbol, voice) in &split {
            if i >= voice.count {
                let (bars, voice) = (voice.count, (*symbol).to_owned());
                return Err(Error::UnequalBars { voice, bars, expected: count });
            }
            let bar = voice.bar(i);
            if keep(bar) {
                line.extend(["[", symbol, "]"]);
                if i == 0 {
                    line.extend([voice.prefix, voice.left(0)]);
                }
                line.extend([bar, voice.right(i)]);
            }
        }
        line.push('\n');
        lines.push(line);
    }
    Ok(lines)
}

fn ended(line: &str) -> String {
    if line.ends_with('\n') { line.to_owned() } else { format!("{line}\n") }
}

/// Splits interleaved ABC. The voices are in the order of their numbers; the bar lines of the last voice keep the
/// line's `\n`, as in `abctoolkit`.
///
/// # Errors
/// [`Error::NotInterleaved`] names the line and the voice that is wrong.
pub fn interleaved_bars(lines: &[String]) -> Result<PieceBars> {
    // Where there is no music, the original reads all lines both as header and as music.
    let start = lines.iter().position(|line| line.contains("[V:1]"));
    let (header, body) = start.map_or((lines, lines), |start| lines.split_at(start));
    let symbols = sorted_symbols(header)?;
    let mut voices: Vec<VoiceBars> = Vec::new();
    for symbol in &symbols {
        if !voices.iter().any(|voice| voice.symbol == *symbol) {
            voices.push(VoiceBars { symbol: symbol.clone(), ..VoiceBars::default() });
        }
    }
    for (i, line) in body.iter().enumerate() {
        for (j, symbol) in symbols.iter().enumerate() {
            let wrong =
                |voice: &String| Error::NotInterleaved { line: start.unwrap_or(0) + i + 1, voice: voice.clone() };
            let mark = format!("[{symbol}]");
            let start = line.find(&mark).ok_or_else(|| wrong(symbol))? + mark.len();
            let end = match symbols.get(j + 1) {
                Some(next) => line.find(&format!("[{next}]")).ok_or_else(|| wrong(next))?,
                None => line.len(),
            };
            let text = if start <= end { &line[start..end] } else { "" };
            let voice = voices.iter_mut().find(|voice| voice.symbol == *symbol).ok_or_else(|| wrong(symbol))?;
            add(voice, text, i == 0).ok_or_else(|| wrong(symbol))?;
        }
    }
    Ok(PieceBars { header: header.to_vec(), voices })
}

/// Adds one bar to a voice. The text is `[prefix, bar line] bar, bar line, rest`.
fn add(voice: &mut VoiceBars, text: &str, first: bool) -> Option<()> {
    let mut elements: Vec<String> = barlines::split(text).into_iter().map(str::to_owned).collect();
    let rest = elements.pop()?;
    elements.last_mut()?.push_str(&rest);
    if first {
        let left = match elements.len() {
            2 => String::new(),
            4 => {
                voice.prefix.clone_from(&elements[0]);
                let bar = elements[2].clone();
                // The original fails on an empty bar here.
                bar.chars().next()?;
                let length = ending(&bar);
                if let Some(length) = length {
                    elements[2] = strip(&bar[length..]).to_owned();
                }
                format!("{}{}", elements[1], &bar[..length.unwrap_or(0)])
            }
            _ => return None,
        };
        voice.left.push(left);
    } else {
        voice.left.push(voice.right.last()?.clone());
    }
    voice.right.push(elements.pop()?);
    voice.bars.push(elements.pop()?);
    Some(())
}

/// The symbols of the header's `V:` lines, sorted by their numbers.
pub(crate) fn sorted_symbols(header: &[String]) -> Result<Vec<String>> {
    let mut symbols = Vec::new();
    for line in header.iter().filter(|line| line.starts_with("V:")) {
        let symbol = words(line).next().unwrap_or_default().to_owned();
        let number = integer(&symbol[2..]).ok_or_else(|| Error::VoiceNumber { voice: symbol.clone() })?;
        symbols.push((number, symbol));
    }
    symbols.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(symbols.into_iter().map(|(_, symbol)| symbol).collect())
}

/// Converts interleaved ABC to standard ABC, in lines of at most about 100 characters.
///
/// # Errors
/// As [`interleaved_bars`].
pub fn uninterleave(lines: &[String]) -> Result<Vec<String>> {
    let PieceBars { header, voices } = interleaved_bars(lines)?;
    let mut result: Vec<String> = header.iter().map(|line| ended(line)).collect();
    for voice in voices {
        result.push(format!("{}\n", voice.symbol));
        let missing = || Error::NotInterleaved { line: header.len() + 1, voice: voice.symbol.clone() };
        let mut line = format!("{}{} ", voice.prefix, voice.left.first().ok_or_else(missing)?);
        let mut length = 0;
        for (bar, right) in voice.bars.iter().zip(&voice.right) {
            let bar = format!("{bar} {right} ");
            let more = bar.chars().count();
            if length != 0 && length + more > 100 {
                line.push('\n');
                result.push(std::mem::replace(&mut line, " ".into()));
                length = 0;
            }
            line.push_str(&bar);
            length += more;
        }
        if !strip(&line).is_empty() {
            line.push('\n');
            result.push(line);
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::lines;

    const STANDARD: &str =
        "%%score 1 2\nL:1/8\nK:C\nV:1 treble\nV:2 bass\nV:1\n[K:D] |: A2 | B2 |]\nV:2\n c2 | d2 |]\n";
    const INTERLEAVED: &str =
        "%%score 1 2\nL:1/8\nK:C\nV:1 treble\nV:2 bass\n[V:1][K:D]|:A2|[V:2]c2|\n[V:1]B2|][V:2]d2|]\n";

    #[test]
    fn there_and_back() {
        let interleaved = interleave(&lines(STANDARD)).unwrap();
        assert_eq!(interleaved.concat(), INTERLEAVED);
        let back = uninterleave(&interleaved).unwrap();
        assert_eq!(interleave(&back).unwrap(), interleaved);
    }

    #[test]
    fn a_line_without_a_voice_is_named() {
        let text = INTERLEAVED.replace("[V:2]d2|]", "");
        let error = interleaved_bars(&lines(&text)).unwrap_err();
        assert_eq!(error.to_string(), "line 7: no bar for voice V:2");
        let text = INTERLEAVED.replace("V:2 bass", "V:x bass");
        assert!(matches!(interleaved_bars(&lines(&text)), Err(Error::VoiceNumber { .. })));
    }

    #[test]
    fn voices_of_different_length_are_an_error() {
        let text = STANDARD.replace(" c2 | d2 |]", "c2 |]");
        assert!(matches!(interleave(&lines(&text)), Err(Error::UnequalBars { bars: 1, expected: 2, .. })));
    }
}
