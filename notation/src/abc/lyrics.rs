//! Lines of lyrics (`w:`).

use super::score::Syllable;

/// A token of a line of lyrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LyricToken {
    /// `*`: a note without a syllable.
    Skip,
    /// `|`: continues with the next bar.
    Bar,
    /// A syllable. For `_` its text is empty: the syllable before is held.
    Syllable(Syllable),
}

pub(crate) fn syllables(line: &str) -> Vec<LyricToken> {
    let mut found = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | ']' => {}
            '*' | '-' => found.push(LyricToken::Skip),
            '_' => found.push(LyricToken::Syllable(Syllable { text: String::new(), hyphen: false })),
            '|' => found.push(LyricToken::Bar),
            _ => {
                let mut text = String::new();
                let mut next = Some(c);
                while let Some(c) = next {
                    match c {
                        '\\' => text.extend(chars.next()),
                        '~' => text.push(' '),
                        _ => text.push(c),
                    }
                    next = chars.next_if(|c| !"*-_| \t]".contains(*c));
                }
                let hyphen = chars.next_if_eq(&'-').is_some();
                found.push(LyricToken::Syllable(Syllable { text, hyphen }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syllables_hyphens_and_holds() {
        let syllable = |text: &str, hyphen| LyricToken::Syllable(Syllable { text: text.into(), hyphen });
        let expected = [
            syllable("ne-_ab", true),
            syllable("sence", false),
            LyricToken::Skip,
            syllable("", false),
            LyricToken::Bar,
            syllable("qu'il y", false),
        ];
        assert_eq!(syllables(r" ne\-\_ab-sence * _ | qu'il~y"), expected);
        assert_eq!(syllables("\\"), [syllable("", false)]);
    }
}
