//! Checks that the staves of an instrument are next to each other.

use std::collections::HashSet;

/// Whether no instrument returns after another one. The original requires this of the pieces it prefers (`RL/data.py`).
///
/// The instruments are the names in the header's `V:` lines (`nm="…"`; the short name if the long one is empty). Lines
/// without a name belong to the instrument before.
pub fn is_grouped<S: AsRef<str>>(lines: &[S]) -> bool {
    let mut seen = HashSet::new();
    let mut last = "";
    for name in lines.iter().filter_map(|line| instrument(line.as_ref())) {
        if name != last && !seen.insert(name) {
            return false;
        }
        last = name;
    }
    true
}

/// The instrument that a `V:` line names.
fn instrument(line: &str) -> Option<&str> {
    const NAME: &str = "nm=\"";
    let mut rest = line.strip_prefix("V:")?;
    // Also `snm="…"`, as in the original.
    while let Some(start) = rest.find(NAME) {
        rest = &rest[start + NAME.len()..];
        match rest.find('"')? {
            0 => {}
            end => return Some(&rest[..end]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(lines: &[&str]) -> bool {
        is_grouped(lines)
    }

    #[test]
    fn an_instrument_that_comes_back_is_not_grouped() {
        let (piano, violin, unnamed) =
            ("V:1 treble nm=\"Piano\" snm=\"Pno.\"\n", "V:3 treble nm=\"Violin\"\n", "V:2\n");
        assert!(grouped(&[]));
        assert!(grouped(&[piano, unnamed, violin, violin]));
        assert!(grouped(&[piano, piano, violin]));
        assert!(!grouped(&[piano, violin, piano]));
        assert!(!grouped(&[piano, violin, unnamed, piano]));
        // Only `V:` lines count, wherever they are.
        assert!(grouped(&[piano, violin, "[V:1] nm=\"Piano\"\n"]));
    }

    #[test]
    fn odd_names_are_read_as_the_original_reads_them() {
        assert_eq!(instrument("V:1 nm=\"\" snm=\"Vl.\"\n"), Some("Vl."));
        assert_eq!(instrument("V:1 snm=\"Vl.\" nm=\"Violin\"\n"), Some("Vl."));
        assert_eq!(instrument("V:1 nm=\"Violin\n"), None);
        assert_eq!(instrument("V:1 nm=Violin\n"), None);
        assert_eq!(instrument("V:1 nm=\"Vîolin\"\n"), Some("Vîolin"));
    }
}
