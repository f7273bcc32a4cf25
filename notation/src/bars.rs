//! Splits standard ABC into header, voices and bars.

use std::borrow::Cow;

use crate::barlines::{self, BAR_LINES};
use crate::text::{strip, words};
use crate::{Error, Result, enclosed};

/// A piece split into its header and the text of each voice.
#[derive(Clone, Debug, PartialEq)]
pub struct VoiceTexts {
    /// The lines before the music, each with its `\n`.
    pub header: Vec<String>,
    /// The symbol (`V:1`) and the text of each voice, in the order of the file.
    pub voices: Vec<(String, String)>,
}

/// A piece split into its header and the bars of each voice.
#[derive(Clone, Debug, PartialEq)]
pub struct PieceBars {
    /// The lines before the music, each with its `\n`.
    pub header: Vec<String>,
    /// The voices in the order of the file.
    pub voices: Vec<VoiceBars>,
}

/// The bars of one voice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VoiceBars {
    /// Such as `V:1`.
    pub symbol: String,
    /// Fields before the first bar line, such as `[K:D]`.
    pub prefix: String,
    /// The bar line on the left of each bar; the first may be empty.
    pub left: Vec<String>,
    /// The text between the bar lines.
    pub bars: Vec<String>,
    /// The bar line on the right of each bar, with the number of an ending: `:|2`.
    pub right: Vec<String>,
}

/// The header fields that this crate needs, of the piece and of each voice.
#[derive(Clone, Debug, PartialEq)]
pub struct AbcHeader {
    /// The value of the first `K:` before the voices.
    pub key: String,
    /// The voices that the header defines.
    pub voices: Vec<HeaderVoice>,
}

/// A `V:` line of the header.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderVoice {
    /// Such as `V:1`.
    pub symbol: String,
    /// The rest of the line: clef, name and so on.
    pub value: String,
    /// Whether a `K:` line of its own follows.
    pub own_key: bool,
}

/// The line where the music begins: the last one that is `V:1`.
pub(crate) fn music(lines: &[String]) -> Result<usize> {
    lines.iter().rposition(|line| strip(line) == "V:1").ok_or(Error::NoMusic)
}

/// Splits a piece into its header and the text of each voice.
///
/// # Errors
/// [`Error::NoMusic`].
pub fn voices(lines: &[String]) -> Result<VoiceTexts> {
    let (header, body) = lines.split_at(music(lines)?);
    let mut voices: Vec<(String, String)> = Vec::new();
    let mut current = 0;
    for (i, line) in body.iter().enumerate() {
        if i == 0 || line.starts_with("V:") {
            let symbol = strip(line).to_owned();
            // A voice that occurs again replaces its earlier text.
            current = voices.iter().position(|(known, _)| *known == symbol).unwrap_or(voices.len());
            if current == voices.len() {
                voices.push((symbol, String::new()));
            } else {
                voices[current].1.clear();
            }
        } else {
            voices[current].1.push_str(line);
        }
    }
    Ok(VoiceTexts { header: header.to_vec(), voices })
}

/// Splits a piece into its header and the bars of each voice.
///
/// # Errors
/// [`Error::NoMusic`]; [`Error::NotBars`] names the voice.
pub fn bars(lines: &[String]) -> Result<PieceBars> {
    let voices = voices(lines)?;
    let split = split(&voices)?.into_iter();
    Ok(PieceBars { voices: split.map(|(symbol, voice)| voice.bars(symbol)).collect(), header: voices.header })
}

/// Splits the text of each voice; returns it with the voice's symbol.
pub(crate) fn split(voices: &VoiceTexts) -> Result<Vec<(&str, SplitVoice<'_>)>> {
    let mut all = Vec::with_capacity(voices.voices.len());
    for (symbol, text) in &voices.voices {
        let voice = SplitVoice::of(text).ok_or_else(|| Error::NotBars { voice: symbol.clone() })?;
        all.push((symbol.as_str(), voice));
    }
    Ok(all)
}

/// How many bytes at the beginning of a bar belong to the bar line before it: the numbers of endings, or a colon.
pub(crate) fn ending(bar: &str) -> Option<usize> {
    let first = bar.chars().next()?;
    if !first.is_ascii_digit() && first != ':' {
        return None;
    }
    let other = bar.find(|c: char| !c.is_ascii_digit() && !",.-:".contains(c));
    Some(other.unwrap_or(bar.len() - 1))
}

/// The text of a voice, split into bars and bar lines.
pub(crate) struct SplitVoice<'a> {
    /// See [`VoiceBars::prefix`].
    pub prefix: &'a str,
    /// The number of bars.
    pub count: usize,
    elements: Vec<Cow<'a, str>>,
    /// The index of the first bar in `elements`.
    first: usize,
}

impl<'a> SplitVoice<'a> {
    fn of(text: &'a str) -> Option<SplitVoice<'a>> {
        let filled = barlines::split(strip(text)).into_iter().filter(|element| !strip(element).is_empty());
        // A repeated bar line counts once.
        let mut elements: Vec<Cow<str>> = Vec::new();
        for element in filled {
            if elements.last().is_none_or(|last| *last != element) {
                elements.push(Cow::Borrowed(element));
            }
        }

        let is_bar_line = |element: &str| BAR_LINES.contains(&element);
        let first = elements.first()?;
        let mut prefix = "";
        let start = if is_bar_line(first) {
            1
        } else if let Cow::Borrowed(first) = first
            && strip(&enclosed::remove_fields(first)).is_empty()
        {
            prefix = strip(first);
            2
        } else {
            0
        };
        for i in (start..elements.len()).step_by(2) {
            let bar = match &elements[i] {
                Cow::Borrowed(bar) if !strip(bar).contains('\n') => Cow::Borrowed(strip(bar)),
                bar => Cow::Owned(strip(bar).replace('\n', "")),
            };
            elements[i] = if let Some(length) = ending(&bar) {
                let before = i.checked_sub(1).unwrap_or(elements.len() - 1);
                elements[before].to_mut().push_str(&bar[..length]);
                match bar {
                    Cow::Borrowed(bar) => Cow::Borrowed(strip(&bar[length..])),
                    Cow::Owned(bar) => Cow::Owned(strip(&bar[length..]).to_owned()),
                }
            } else {
                bar
            };
        }

        let pairs = elements.len() / 2;
        // The first element is no bar line if the number of an ending was added to it.
        let (first, count) = if is_bar_line(&elements[0]) {
            // Every bar has a bar line on its right.
            if pairs > 0 && elements.len() == 2 * pairs {
                return None;
            }
            (1, pairs)
        } else if prefix.is_empty() {
            // The first bar has no bar line on its left; without any pair, nothing matches it.
            if pairs == 0 {
                return None;
            }
            (0, pairs)
        } else {
            (2, pairs.saturating_sub(1))
        };
        Some(SplitVoice { prefix, count, elements, first })
    }

    /// The bar line on the left of a bar; of the first it may be empty.
    pub fn left(&self, bar: usize) -> &str {
        (self.first + 2 * bar).checked_sub(1).and_then(|at| self.elements.get(at)).map_or("", |element| element)
    }

    /// A bar.
    pub fn bar(&self, bar: usize) -> &str {
        self.elements.get(self.first + 2 * bar).map_or("", |element| element)
    }

    /// The bar line on the right of a bar.
    pub fn right(&self, bar: usize) -> &str {
        self.elements.get(self.first + 2 * bar + 1).map_or("", |element| element)
    }

    fn bars(&self, symbol: &str) -> VoiceBars {
        let bars = 0..self.count;
        VoiceBars {
            symbol: symbol.to_owned(),
            prefix: self.prefix.to_owned(),
            left: bars.clone().map(|bar| self.left(bar).to_owned()).collect(),
            right: bars.clone().map(|bar| self.right(bar).to_owned()).collect(),
            bars: bars.map(|bar| self.bar(bar).to_owned()).collect(),
        }
    }
}

/// Reads the header's keys and voices.
///
/// # Errors
/// [`Error::NoVoices`], [`Error::NoKey`], [`Error::Header`] for a line too short to be a field.
pub fn header(lines: &[String]) -> Result<AbcHeader> {
    let start = lines.iter().position(|line| line.starts_with("V:")).ok_or(Error::NoVoices)?;
    let second = |line: &str| line.chars().nth(1).ok_or_else(|| Error::Header { text: strip(line).to_owned() });

    let mut key = None;
    for line in &lines[..start] {
        if !line.starts_with("%%") && second(line)? == ':' && line.starts_with('K') && key.is_none() {
            key = Some(strip(&line[2..]).to_owned());
        }
    }

    let mut voices: Vec<HeaderVoice> = Vec::new();
    let mut current = 0;
    for line in &lines[start..] {
        if line.starts_with("V:") {
            let symbol = words(line).next().unwrap_or_default().to_owned();
            let value = strip(&line[symbol.len()..]).to_owned();
            let voice = HeaderVoice { symbol, value, own_key: false };
            current = voices.iter().position(|known| known.symbol == voice.symbol).unwrap_or(voices.len());
            if current == voices.len() {
                voices.push(voice);
            } else {
                voices[current] = voice;
            }
        } else if second(line)? == ':' && line.starts_with('K') {
            voices[current].own_key = true;
        }
    }
    Ok(AbcHeader { key: key.ok_or(Error::NoKey)?, voices })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<VoiceBars> {
        SplitVoice::of(text).map(|voice| voice.bars(""))
    }

    #[test]
    fn bars_endings_and_repeats() {
        let voice = one("|: A2 | B2 |1 c :|2 d ||\n e |]").unwrap();
        assert_eq!(voice.left, ["|:", "|", "|1", ":|2", "||"]);
        assert_eq!(voice.bars, ["A2", "B2", "c", "d", "e"]);
        assert_eq!(voice.right, ["|", "|1", ":|2", "||", "|]"]);
    }

    #[test]
    fn prefix_and_first_bar() {
        let voice = one("[K:D] |: A | B :|").unwrap();
        assert_eq!((voice.prefix.as_str(), voice.left[0].as_str()), ("[K:D]", "|:"));
        let voice = one("A | | B |").unwrap();
        assert_eq!((voice.left, voice.bars), (vec![String::new(), "|".into()], vec!["A".into(), "B".into()]));
    }

    #[test]
    fn what_is_no_sequence_of_bars() {
        assert!(one("").is_none());
        assert!(one("A B").is_none());
        assert!(one("| A").is_none());
    }

    #[test]
    fn a_voice_that_comes_again_replaces_the_first() {
        let lines: Vec<String> = ["K:C\n", "V:1\n", "A|\n", "V:2\n", "B|\n", "V:2\n", "c|\n"].map(Into::into).to_vec();
        let voices = voices(&lines).unwrap();
        assert_eq!(voices.voices, [("V:1".into(), "A|\n".into()), ("V:2".into(), "c|\n".into())]);
    }

    #[test]
    fn header_fields() {
        let lines: Vec<String> =
            ["%%score 1\n", "K:Gmin\n", "V:1 treble nm=\"A\"\n", "V:2 perc\n", "K:none\n"].map(Into::into).to_vec();
        let header = header(&lines).unwrap();
        assert_eq!(header.key, "Gmin");
        assert_eq!(header.voices[0].value, "treble nm=\"A\"");
        assert!(header.voices[1].own_key && !header.voices[0].own_key);
        assert!(matches!(super::header(&lines[..2]), Err(Error::NoVoices)));
    }
}
