//! Text as Python reads it: white space, lines, integers.

use num_bigint::BigInt;

use crate::{Error, Result};

/// White space in the sense of Python's `str.strip` and `str.split`.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Decodes the bytes of a file as UTF-8.
///
/// # Errors
/// [`Error::Encoding`] names the first bad byte.
pub fn decode(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let byte = error.valid_up_to();
        let line = 1 + bytes[..byte].iter().filter(|b| **b == b'\n').count();
        Error::Encoding { line, byte }
    })
}

/// The lines of a text, each with its `\n`. As in Python's text files, `\r\n` and `\r` become `\n`.
pub fn lines(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// The non-empty lines of a text, each with a `\n`. The original splits generated text so.
pub fn filled_lines(text: &str) -> Vec<String> {
    text.split('\n').filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Python's `int` of a decimal text: sign, digits, single underscores between them.
pub(crate) fn integer(text: &str) -> Option<BigInt> {
    let text = strip(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let valid = digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    // Python's own limit on conversions.
    if !valid || digits.len() > 4300 {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_pythons() {
        assert_eq!(strip("\u{1f}\u{a0} a b\u{85}\n"), "a b");
        assert_eq!(words(" V:1\ttreble\u{2003}nm").collect::<Vec<_>>(), ["V:1", "treble", "nm"]);
    }

    #[test]
    fn all_newlines_are_one() {
        assert_eq!(lines("a\r\nb\rc\n\nd"), ["a\n", "b\n", "c\n", "\n", "d"]);
        assert_eq!(filled_lines("a\n\n b\n"), ["a\n", " b\n"]);
    }

    #[test]
    fn integers_are_pythons() {
        for (text, value) in [("12", Some(12)), ("+1_0", Some(10)), ("", None), ("1__0", None), ("_1", None)] {
            assert_eq!(integer(text), value.map(BigInt::from), "{text:?}");
        }
    }

    #[test]
    fn bad_bytes_are_located() {
        let error = decode(b"ab\nc\xff").unwrap_err().to_string();
        assert_eq!(error, "line 2: not UTF-8 (byte 4 of the file)");
    }
}
