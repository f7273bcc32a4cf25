//! Bar lines in a voice's text.

use std::ops::Range;

/// The bar lines that separate bars. Where several match, the first of the list counts.
pub(crate) const BAR_LINES: [&str; 13] =
    ["||:", ":||", "[|:", ":|]", "|]:", ":[|", "|:", "::", ":|", "[|", "||", "|]", "|"];

/// The bar lines at which accidentals end when a voice is transposed.
pub(crate) const ACCIDENTAL_BAR_LINES: [&str; 7] = ["|:", "::", ":|", "[|", "||", "|]", "|"];

/// The ranges of the bar lines in `list`, from left to right.
pub(crate) fn find<'a>(text: &'a str, list: &'static [&str]) -> impl Iterator<Item = Range<usize>> + 'a {
    let bytes = text.as_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        while from < bytes.len() {
            let at = from;
            if matches!(bytes[at], b'|' | b':' | b'[')
                && let Some(line) = list.iter().find(|line| bytes[at..].starts_with(line.as_bytes()))
            {
                from = at + line.len();
                return Some(at..from);
            }
            from += 1;
        }
        None
    })
}

/// Splits at the bar lines: text, bar line, text, …, text. The number of elements is odd.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let mut elements = Vec::new();
    let mut from = 0;
    for line in find(text, &BAR_LINES) {
        elements.extend([&text[from..line.start], &text[line.clone()]]);
        from = line.end;
    }
    elements.push(&text[from..]);
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_bar_lines_come_first() {
        assert_eq!(split("|: A ||: B :| [1 C |]"), ["", "|:", " A ", "||:", " B ", ":|", " [1 C ", "|]", ""]);
        assert_eq!(split("A"), ["A"]);
        assert_eq!(split("a:b"), ["a:b"]);
    }
}
