//! Text between delimiters: `"annotations"`, `!decorations!`, `[chords]` and `[K:fields]`, `{grace notes}`.

use std::ops::Range;

/// Delimiters: the opening one, the closing one, and whether something must be between them.
#[derive(Clone, Copy)]
pub(crate) struct Pair(u8, u8, bool);

pub(crate) const QUOTES: Pair = Pair(b'"', b'"', false);
pub(crate) const FILLED_QUOTES: Pair = Pair(b'"', b'"', true);
pub(crate) const EXCLAMATIONS: Pair = Pair(b'!', b'!', true);
pub(crate) const BRACKETS: Pair = Pair(b'[', b']', true);
pub(crate) const BRACES: Pair = Pair(b'{', b'}', true);

/// The ranges of the pairs, with their delimiters, from left to right and without overlap.
pub(crate) fn find(text: &str, Pair(open, close, filled): Pair) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + bytes[from..].iter().position(|b| *b == open)?;
            let length = bytes[start + 1..].iter().position(|b| *b == close)?;
            if length == 0 && filled {
                from = start + 1;
                continue;
            }
            from = start + length + 2;
            return Some(start..from);
        }
    })
}

/// The text without the pairs and what is between them.
pub(crate) fn remove(text: &str, pair: Pair) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut from = 0;
    for range in find(text, pair) {
        rest.push_str(&text[from..range.start]);
        from = range.end;
    }
    rest.push_str(&text[from..]);
    rest
}

/// The text without `[K:…]`, `[M:…]` and the like.
pub(crate) fn remove_fields(text: &str) -> String {
    let mut rest = text.to_owned();
    for range in find(text, BRACKETS) {
        let mut inside = text[range.start + 1..].chars();
        if inside.next().is_some_and(char::is_alphabetic) && inside.next() == Some(':') {
            rest = rest.replace(&text[range], "");
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, pair: Pair) -> Vec<&str> {
        find(text, pair).map(|range| &text[range]).collect()
    }

    #[test]
    fn pairs_are_found_as_by_the_originals_patterns() {
        assert_eq!(found(r#"a"b"c""d"e"#, QUOTES), ["\"b\"", "\"\""]);
        assert_eq!(found(r#"""abc""#, FILLED_QUOTES), ["\"abc\""]);
        assert_eq!(found("!!a!b!", EXCLAMATIONS), ["!a!"]);
        assert_eq!(found("[][[CE]G]", BRACKETS), ["[[CE]"]);
        assert_eq!(found("[CE", BRACKETS), [""; 0]);
    }

    #[test]
    fn removal() {
        assert_eq!(remove("a{bc}d{}e", BRACES), "ad{}e");
        assert_eq!(remove_fields("[K:D][CE] [M:3/4]A[K:D]"), "[CE] A");
    }
}
