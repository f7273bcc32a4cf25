//! Names of pitches in ABC.

/// The name of a pitch: `C` is middle C, in octave 4; `c` is an octave higher.
pub(super) fn name(step: char, octave: i64) -> String {
    signed("", step, octave)
}

/// The name of a pitch with an accidental.
pub(super) fn altered(step: char, octave: i64, alteration: i64) -> String {
    signed(accidental(alteration), step, octave)
}

fn signed(sign: &str, step: char, octave: i64) -> String {
    let mut name = String::with_capacity(8);
    name.push_str(sign);
    name.push(if octave > 4 { step.to_ascii_lowercase() } else { step });
    for _ in 5..octave {
        name.push('\'');
    }
    for _ in octave..4 {
        name.push(',');
    }
    name
}

/// The sign for an alteration of at most two semitones.
fn accidental(alteration: i64) -> &'static str {
    match alteration {
        ..=-2 => "__",
        -1 => "_",
        0 => "=",
        1 => "^",
        _ => "^^",
    }
}

/// The semitones of a step above C.
pub(super) fn semitones(step: char) -> i64 {
    match step {
        'D' => 2,
        'E' => 4,
        'F' => 5,
        'G' => 7,
        'A' => 9,
        'B' => 11,
        _ => 0,
    }
}

const STEPS: [char; 7] = ['C', 'D', 'E', 'F', 'G', 'A', 'B'];

/// The step and octave that are `steps` higher.
pub(super) fn up(step: char, octave: i64, steps: i64) -> (char, i64) {
    let place = STEPS.iter().position(|other| *other == step).unwrap_or(0) as i64 + steps;
    (STEPS[place.rem_euclid(7) as usize], octave + place.div_euclid(7))
}

/// The same pitch with at most a double accidental.
pub(super) fn respelled(mut step: char, mut octave: i64, mut alteration: i64) -> (char, i64, i64) {
    while alteration.abs() > 2 {
        let (next, next_octave) = up(step, octave, alteration.signum());
        alteration -= 12 * (next_octave - octave) + semitones(next) - semitones(step);
        (step, octave) = (next, next_octave);
    }
    (step, octave, alteration)
}

/// The MIDI number of a note in ABC; -1 if it is no note.
pub(super) fn midi(note: &str) -> i64 {
    let Some(place) = note.find(|c: char| matches!(c, 'A'..='G' | 'a'..='g')) else { return -1 };
    let letter = note[place..].chars().next().unwrap_or('C');
    let signs = note[..place].bytes().rev().take_while(|sign| matches!(sign, b'_' | b'^'));
    let marks = note[place + 1..].bytes().take_while(|sign| matches!(sign, b'\'' | b','));
    let octave = 12 * marks.clone().count() as i64;
    let mut pitch = 60 + semitones(letter.to_ascii_uppercase()) + if letter.is_ascii_lowercase() { 12 } else { 0 };
    // As in the original, the first sign decides.
    let count = signs.clone().count() as i64;
    match signs.last() {
        Some(b'^') => pitch += count,
        Some(_) => pitch -= count,
        None => {}
    }
    match marks.into_iter().next() {
        Some(b'\'') => pitch += octave,
        Some(_) => pitch -= octave,
        None => {}
    }
    pitch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (step, octave, abc, number) in
            [('C', 4, "C", 60), ('A', 5, "a", 81), ('B', 2, "B,,", 47), ('G', 7, "g''", 103)]
        {
            assert_eq!(name(step, octave), abc);
            assert_eq!(midi(abc), number);
        }
        assert_eq!((midi("^^c,"), midi("_e'"), midi("x")), (62, 87, -1));
    }

    #[test]
    fn triple_accidentals_become_others() {
        assert_eq!(respelled('C', 4, 3), ('D', 4, 1));
        assert_eq!(respelled('B', 4, 3), ('C', 5, 2));
        assert_eq!(respelled('C', 4, -3), ('B', 3, -2));
    }
}
