//! Pieces as patches of bars (arXiv 2410.13267, section 3.2; the original's `M3Patchilizer` in `code/utils.py`).

use notation::transliterate::transliterate;

use super::mtf;
use crate::patches::{BARLINES, BOS, EOS, Patches, split_at_barlines};
use crate::{Error, Result};

/// Turns ABC and MTF into patches: a line of metadata, a bar or a few MIDI messages each, behind a mark of its
/// beginning. What does not fit is cut off; what fits has a mark of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patchiliser {
    size: usize,
}

impl Patchiliser {
    /// For patches of `size` characters (the original's 64), at least two.
    pub fn new(size: usize) -> Result<Patchiliser> {
        if size < 2 {
            return Err(Error::Invalid(format!("a patch of {size} characters has no room for its marks")));
        }
        Ok(Patchiliser { size })
    }

    /// A piece between its first and last patch. What is not ASCII is transliterated as Unidecode does.
    ///
    /// # Errors
    /// The original's: an empty text, and a last line that is one barline.
    pub fn encode(&self, text: &str) -> Result<Patches> {
        let text = transliterate(text);
        if text.is_empty() {
            return Err(Error::Invalid("there is no text".to_owned()));
        }
        let texts = if mtf::is_mtf(&text) { mtf::patches(&text, self.size) } else { abc(&text)? };
        let mut characters = vec![BOS; self.size];
        for text in &texts {
            self.push(text.as_bytes(), &mut characters);
        }
        self.push(&vec![EOS; self.size], &mut characters);
        Ok(Patches::from_characters(self.size, characters))
    }

    /// As [`Patchiliser::encode`], of at most `patch_length` patches. A longer piece keeps its beginning; with
    /// `pick`, which draws from `0..n`, its beginning, its end or its middle.
    pub fn encode_cut(
        &self,
        text: &str,
        patch_length: usize,
        pick: Option<&mut dyn FnMut(usize) -> usize>,
    ) -> Result<Patches> {
        let patches = self.encode(text)?;
        let Some(excess) = patches.len().checked_sub(patch_length).filter(|&excess| excess > 0) else {
            return Ok(patches);
        };
        let start = pick.map_or(0, |pick| match pick(3) {
            0 => 0,
            1 => excess,
            _ => 1 + pick(excess),
        });
        let kept = &patches.characters()[start * self.size..(start + patch_length) * self.size];
        Ok(Patches::from_characters(self.size, kept.to_vec()))
    }

    fn push(&self, text: &[u8], characters: &mut Vec<u8>) {
        let end = characters.len() + self.size;
        characters.push(BOS);
        characters.extend(text.iter().take(self.size - 1));
        if characters.len() < end {
            characters.push(EOS);
        }
        characters.resize(end, 0);
    }
}

/// A line of metadata is a patch; a line of music is one for each bar.
fn abc(text: &str) -> Result<Vec<String>> {
    let mut patches = Vec::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let field = matches!(line.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
        if field || line.starts_with("%%") {
            patches.push(line.to_owned());
            continue;
        }
        let mut bars = bars(line).ok_or_else(|| Error::Invalid(format!("line {}: a barline alone", i + 1)))?;
        if let Some(last) = bars.last_mut() {
            last.push('\n');
            patches.extend(bars);
        }
    }
    Ok(patches)
}

/// A line's bars, each with the barline that closes it; one that opens the line goes to the first bar. What stands
/// behind the last barline is left out. Nothing where the original fails.
fn bars(line: &str) -> Option<Vec<String>> {
    let parts = split_at_barlines(line);
    if !parts.first().is_some_and(|first| BARLINES.contains(first)) {
        return Some(parts.chunks_exact(2).map(<[&str]>::concat).collect());
    }
    if parts.len() < 2 {
        return None;
    }
    let first = parts[..parts.len().min(3)].concat();
    let rest = parts.get(3..).unwrap_or_default().chunks_exact(2).map(<[&str]>::concat);
    // The opening barline and a bar without a barline that closes it are no bar.
    Some(if parts.len() == 2 { Vec::new() } else { std::iter::once(first).chain(rest).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let patches = Patchiliser::new(16).unwrap().encode(text).unwrap();
        let row = |i| patches.row(i).iter().filter(|&&c| c > 2).map(|&c| char::from(c)).collect();
        (1..patches.len() - 1).map(row).collect()
    }

    #[test]
    fn bars_are_closed_by_their_barlines_and_the_last_ends_the_line() {
        assert_eq!(texts("K:C\n[V:1]A|[V:2]B|\n"), ["K:C\n", "[V:1]A|", "[V:2]B|\n"]);
        assert_eq!(texts("|:A|B:|\n||\nA\n"), ["|:A|", "B:|\n"]);
    }

    #[test]
    fn marks_and_cut() {
        let patches = Patchiliser::new(4).unwrap().encode("AB|\nA|\n").unwrap();
        let rows: Vec<_> = (0..patches.len()).map(|i| patches.row(i).to_vec()).collect();
        assert_eq!(rows, [*b"\x01\x01\x01\x01", *b"\x01AB|", *b"\x01A|\n", *b"\x01\x02\x02\x02"]);
    }

    #[test]
    fn what_the_original_fails_on_is_an_error_that_names_it() {
        let error = |text| Patchiliser::new(64).unwrap().encode(text).unwrap_err().to_string();
        assert_eq!(error("K:C\nA|\n|"), "line 3: a barline alone");
        assert_eq!(error("\u{301}"), "there is no text");
    }
}
