//! Writes the lengths of notes in ABC.

use super::score::XmlNote;

/// The header's `L:1/8`.
pub(super) const UNIT: i64 = 8;

/// The smallest part of the unit; lengths are rounded to it.
const SMALLEST: i128 = 64;

fn divided<T>(a: T, b: T) -> (T, T)
where
    T: Copy + PartialEq + Default + std::ops::Rem<Output = T> + std::ops::Div<Output = T>,
{
    let (mut x, mut y) = (a, b);
    while y != T::default() {
        (x, y) = (y, x % y);
    }
    if x == T::default() { (a, b) } else { (a / x, b / x) }
}

/// A fraction in lowest terms.
pub(super) fn reduced(a: i64, b: i64) -> (i64, i64) {
    divided(a, b)
}

/// Writes a note's length, in units; nothing for one unit.
pub(super) fn write(note: &XmlNote, divisions: i64, text: &mut String) {
    if note.length == 0 {
        return;
    }
    let (mut count, mut of) = divided(i128::from(UNIT * note.length), i128::from(divisions.max(1) * 4));
    if let Some((many, normal)) = note.ratio {
        (count, of) = divided(count * i128::from(many), of * i128::from(normal));
    }
    if of > SMALLEST {
        let units = count as f64 / of as f64;
        let whole = units.floor();
        if units - whole < 0.1 * units {
            (count, of) = (whole as i128, 1);
        }
        // The original's way to round small halves up.
        let parts = (SMALLEST as f64 * count as f64 / of as f64 + 1e-15).round_ties_even();
        (count, of) = divided(parts as i128, SMALLEST);
    }
    if count != 1 {
        digits(count, text);
    }
    if of != 1 {
        text.push('/');
        if (count, of) != (1, 2) {
            digits(of, text);
        }
    }
}

fn digits(number: i128, text: &mut String) {
    match u8::try_from(number) {
        Ok(digit @ 0..10) => text.push(char::from(b'0' + digit)),
        _ => text.push_str(&number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(note: &XmlNote, divisions: i64) -> String {
        let mut text = String::new();
        write(note, divisions, &mut text);
        text
    }

    #[test]
    fn lengths_are_fractions_of_an_eighth() {
        for (length, divisions, text) in
            [(1, 1, "2"), (1, 2, ""), (1, 4, "/"), (3, 4, "3/2"), (1, 8, "/4"), (0, 4, ""), (100, 768, "17/64")]
        {
            assert_eq!(written(&XmlNote { length, ..XmlNote::default() }, divisions), text);
        }
        let triplet = XmlNote { length: 2, ratio: Some((3, 2)), ..XmlNote::default() };
        assert_eq!(written(&triplet, 6), "");
    }
}
