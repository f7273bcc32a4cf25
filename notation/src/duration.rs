//! The length of a bar, in units of `L:`, as an exact fraction.

use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use crate::enclosed::{self, BRACES, BRACKETS, EXCLAMATIONS, QUOTES};
use crate::text::{integer, strip};
use crate::{Error, Result};

/// An exact length in units of `L:`; prints as `4` or `7/2`.
pub type Duration = BigRational;

/// The length of a bar, given without its bar lines; `None` if the text does not determine it.
///
/// Notes, rests, chords, tuplets (also nested) and dotted pairs count; grace notes, annotations, decorations and inline
/// fields do not. This is `abctoolkit.duration.calculate_bartext_duration`.
///
/// # Errors
/// [`Error::Chord`] for brackets that contain something other than notes.
///
/// ```
/// let length = notation::duration::bar_duration("A2 (3Bcd z/")?;
/// assert_eq!(length.unwrap().to_string(), "9/2");
/// # Ok::<(), notation::Error>(())
/// ```
pub fn bar_duration(bar: &str) -> Result<Option<Duration>> {
    let mut text = enclosed::remove(bar, QUOTES);
    text = enclosed::remove(&text, EXCLAMATIONS);
    text = enclosed::remove(&text, BRACES);
    text = enclosed::remove_fields(&text);

    let chords: Vec<String> = enclosed::find(&text, BRACKETS).map(|range| text[range].to_owned()).collect();
    for chord in chords {
        if !chord.chars().all(|c| is_note(c) || "_=^',[]-".contains(c)) {
            return Err(Error::Chord { voice: String::new(), bar: 0, text: chord });
        }
        text = text.replace(&chord, "C");
    }
    text.retain(|c| !"PSOsouvUVTM.-)_=^',".contains(c));
    Ok(elements(&text).and_then(|elements| total(&elements)))
}

fn is_note(c: char) -> bool {
    matches!(c, 'A'..='G' | 'a'..='g' | 'X' | 'x' | 'Z' | 'z')
}

/// Splits a bar into notes with their lengths, tuplet marks (`(3:2:3`) and runs of `<` or `>`; `None` if a mark is last.
fn elements(text: &str) -> Option<Vec<String>> {
    let all: Vec<char> = text.chars().collect();
    let kept =
        all.iter().enumerate().filter(|(i, c)| **c != '(' || all.get(i + 1).is_some_and(|next| next.is_numeric()));
    let text: Vec<char> = kept.map(|(_, c)| *c).collect();

    let mut elements = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let mut end = start + 1;
        let ended = |end: usize| end == text.len();
        match text[start] {
            c if is_note(c) => {
                while !ended(end) && !is_note(text[end]) && !matches!(text[end], '(' | '<' | '>') {
                    end += 1;
                }
            }
            '(' => {
                while !ended(end) && (text[end].is_numeric() || text[end] == ':') {
                    end += 1;
                }
                if ended(end) {
                    return None;
                }
            }
            '<' | '>' => {
                while !ended(end) && matches!(text[end], '<' | '>') {
                    end += 1;
                }
                if ended(end) {
                    return None;
                }
            }
            _ => {
                start += 1;
                continue;
            }
        }
        elements.push(strip(&text[start..end].iter().collect::<String>()).to_owned());
        start = end;
    }
    Some(elements)
}

/// The sum of the elements' lengths. Lengths not known yet are −1, as in the original; on broken input this changes the
/// result.
fn total(elements: &[String]) -> Option<Duration> {
    let unknown = -Duration::one();
    let kind = |i: usize| elements[i].as_bytes()[0];
    let count = elements.len();
    let mut lengths = Vec::with_capacity(count);
    for element in elements {
        let first = element.as_bytes()[0];
        lengths.push(if matches!(first, b'(' | b'<' | b'>') { unknown.clone() } else { note(element)? });
    }
    for i in 0..count {
        if matches!(kind(i), b'<' | b'>') {
            // If the bar begins with the mark, its last element is used, as the original's index −1 does.
            let before = i.checked_sub(1).unwrap_or(count - 1);
            let after = i + 1;
            lengths[i] = &lengths[before] + lengths.get(after)?;
            lengths[before] = Duration::zero();
            lengths[after] = Duration::zero();
        }
    }
    if (0..count).any(|i| lengths[i] == unknown && kind(i) != b'(') {
        return None;
    }
    // From the right, so that inner tuplets are known before outer ones.
    for i in (0..count).rev() {
        if lengths[i] != unknown {
            continue;
        }
        let [p, q, r] = tuplet(&elements[i])?;
        let mut end = i + 1;
        let mut notes = Duration::zero();
        while notes < r {
            if elements.get(end)?.as_bytes()[0].is_ascii_alphabetic() {
                notes += Duration::one();
            }
            end += 1;
        }
        let inside = lengths[i + 1..end].iter().sum::<Duration>();
        let length = rounded(inside * q / p);
        // The original takes this length for "not known" and computes it once more, from zeros.
        lengths[i] = if length == unknown { Duration::zero() } else { length };
        lengths[i + 1..end].fill(Duration::zero());
    }
    Some(lengths.iter().sum())
}

fn note(element: &str) -> Option<Duration> {
    let text: String = element.chars().filter(|c| !c.is_ascii_alphabetic()).collect();
    match text.as_str() {
        "" => Some(Duration::one()),
        "/" => Some(Duration::new(1.into(), 2.into())),
        text if text.starts_with('/') => fraction(&format!("1{text}")),
        text => fraction(text),
    }
}

/// Python's `Fraction` of a text with no letters, points or minus signs in it.
fn fraction(text: &str) -> Option<Duration> {
    let text = strip(text);
    let (above, below) = text.split_once('/').unwrap_or((text, "1"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(above.strip_prefix('+').unwrap_or(above)) || !digits(below) {
        return None;
    }
    let below = integer(below)?;
    if below.is_zero() {
        return None;
    }
    Some(Duration::new(integer(above)?, below))
}

/// The numbers of `(p:q:r`: p notes in the time of q, for r notes.
fn tuplet(element: &str) -> Option<[Duration; 3]> {
    if element == "(3" {
        return Some([3, 2, 3].map(|n| Duration::from_integer(n.into())));
    }
    let mut parts = element.trim_start_matches('(').split(':');
    let mut part = || {
        let value = integer(parts.next()?)?;
        (!value.is_zero()).then(|| Duration::from_integer(value))
    };
    Some([part()?, part()?, part()?])
}

/// The nearest whole number, if it is at most 1/64 away: tuplets may have been rounded to 64ths.
fn rounded(length: Duration) -> Duration {
    let nearest = length.round();
    let close = Duration::new(1.into(), 64.into());
    // The original fails beyond the range of a float; no bar is that long.
    if length.to_f64().is_some_and(f64::is_finite) && (&length - &nearest).abs() <= close { nearest } else { length }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(bar: &str) -> String {
        bar_duration(bar).unwrap().map_or("none".into(), |d| d.to_string())
    }

    #[test]
    fn notes_rests_chords() {
        assert_eq!(length("A2 B/ c3/2 z/4 x"), "21/4");
        assert_eq!(length(r#""^Allegro" !f! [K:D] {ab}[CE^G]4 (AB)- .c"#), "7");
        assert_eq!(length(""), "0");
        assert_eq!(length("z4y2"), "42"); // as in the original, where y is no space
    }

    #[test]
    fn tuplets_and_dots() {
        assert_eq!(length("(3ABc (3:2:5B2 A2 (1:1:3G43/64F43/64A43/64"), "6");
        assert_eq!(length("A>B c<<d"), "4");
        assert_eq!(length("(5:4:5ABcde"), "4");
    }

    #[test]
    fn what_cannot_be_told() {
        for bar in ["A//", "A2/", "A/0", "(3AB ", "(3:0:2AB ", "A>", "(2AB ", "A\"B"] {
            assert_eq!(length(bar), "none", "{bar:?}");
        }
        assert!(bar_duration("[C2E2]").is_err());
    }
}
