//! Moving a piece to another key.
//!
//! Also to its own: accidentals are spelled anew then, so that ones that change nothing vanish. As
//! `abctoolkit.transpose`, in one pass over the text.

use std::collections::HashMap;

use crate::barlines::{self, ACCIDENTAL_BAR_LINES};
use crate::bars::{Voices, header, voices};
use crate::enclosed::{self, BRACKETS, EXCLAMATIONS, FILLED_QUOTES};
use crate::key::moved;
use crate::text::{filled_lines, strip};
use crate::{Error, Key, Result};

/// A piece in standard ABC, moved so that its global key's signature becomes `to`.
///
/// # Errors
/// A missing or unknown key; a voice that the header lacks or gives a key of its own; a note that cannot
/// be spelled.
pub fn transpose(lines: &[String], to: Key) -> Result<Vec<String>> {
    let Voices { header: metadata, voices } = voices(lines)?;
    let header = header(&metadata)?;
    let global = if header.key == "none" { "C" } else { &header.key };
    let from = Key::of_mode(global)?;

    let mut text = String::new();
    for line in &metadata {
        match line.strip_prefix("K:").map(strip) {
            Some("none") => text.push_str("K:none\n"),
            Some(key) => text.push_str(&format!("K:{}\n", moved(key, from, to)?.0)),
            None => text.push_str(line),
        }
    }
    for (symbol, body) in &voices {
        text.extend([symbol, "\n"]);
        let voice = header
            .voices
            .iter()
            .find(|voice| voice.symbol == *symbol)
            .ok_or_else(|| Error::UndefinedVoice { voice: symbol.clone() })?;
        if voice.value.contains("perc") {
            text.push_str(body);
        } else if voice.own_key {
            return Err(Error::VoiceKey { voice: symbol.clone() });
        } else {
            text.push_str(&transpose_voice(body, global, moved(global, from, to)?.1)?);
        }
    }
    Ok(filled_lines(&text))
}

/// What a piece of a voice's text is.
enum Kind {
    BarLine,
    /// An inline key; its new name.
    Key(String),
    /// The root in a chord symbol.
    Chord,
    Note,
}

struct Element {
    start: usize,
    end: usize,
    kind: Kind,
}

/// The keys of a stretch of the text.
struct Stretch {
    start: usize,
    from: Key,
    to: Key,
}

fn transpose_voice(text: &str, mode: &str, to: Key) -> Result<String> {
    let from = Key::of_mode(mode)?;
    let mut elements: Vec<Element> = barlines::find(text, &ACCIDENTAL_BAR_LINES)
        .map(|at| Element { start: at.start, end: at.end, kind: Kind::BarLine })
        .collect();
    // Which bytes may belong to notes.
    let mut free = vec![true; text.len()];

    let mut stretches = Vec::new();
    if !text.is_empty() {
        stretches.push(Stretch { start: 0, from, to: moved(mode, from, to)?.1 });
    }
    for at in enclosed::find(text, BRACKETS) {
        let inside = &text[at.start + 1..at.end - 1];
        let second = inside.chars().nth(1);
        let key = inside.strip_prefix("K:").filter(|key| key.starts_with(|c| ('A'..='G').contains(&c)));
        if let Some(key) = key {
            let (name, to) = moved(key, from, to)?;
            let start = at.start + 3;
            // Text before the first key is evaluated too, and so is text replaced by a key at once.
            stretches.push(Stretch { start, from: Key::of_mode(key)?, to });
            elements.push(Element { start, end: at.end - 1, kind: Kind::Key(name) });
            free[at].fill(false);
        } else if second == Some(':') {
            free[at].fill(false);
        } else {
            free[at.start] = false;
            free[at.end - 1] = false;
        }
    }
    for at in enclosed::find(text, FILLED_QUOTES) {
        free[at.clone()].fill(false);
        let bytes = &text.as_bytes()[..at.end];
        if (b'A'..=b'G').contains(&bytes[at.start + 1]) {
            for start in at.start..at.end {
                if (b'A'..=b'G').contains(&bytes[start]) {
                    let sign = matches!(bytes.get(start + 1), Some(b'#' | b'b'));
                    elements.push(Element { start, end: start + 1 + usize::from(sign), kind: Kind::Chord });
                }
            }
        }
    }
    for at in enclosed::find(text, EXCLAMATIONS) {
        free[at].fill(false);
    }
    for at in barlines::find(text, &ACCIDENTAL_BAR_LINES) {
        free[at].fill(false);
    }
    find_notes(text, &free, &mut elements);
    elements.sort_by_key(|element| element.start);

    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    let mut stretch = 0;
    // Since the last bar line or key: notes as written to their pitch, and new notes to their pitch,
    // both without and with accidental.
    let mut sounding: HashMap<&str, String> = HashMap::new();
    let mut written: HashMap<String, String> = HashMap::new();
    for element in &elements {
        let old = &text[element.start..element.end];
        if done < element.start {
            result.push_str(&text[done..element.start]);
        }
        done = element.end;
        while stretches.get(stretch + 1).is_some_and(|next| next.start <= element.start) {
            stretch += 1;
        }
        let Some(Stretch { from, to, .. }) = stretches.get(stretch) else { continue };
        match &element.kind {
            Kind::BarLine => result.push_str(old),
            Kind::Key(name) => result.push_str(name),
            Kind::Chord => result.push_str(&chord(old, *from, *to)?),
            Kind::Note => {
                let bare = old.trim_start_matches(['=', '^', '_']);
                let actual = if bare.len() < old.len() {
                    old.to_owned()
                } else {
                    sounding.get(bare).cloned().unwrap_or_else(|| {
                        let letter = bare.chars().next().unwrap_or('C').to_ascii_uppercase();
                        format!("{}{bare}", from.accidental(letter))
                    })
                };
                let new = note(&actual, *from, *to)?;
                sounding.insert(bare, actual);
                let bare = new.trim_start_matches(['=', '^', '_']);
                let sign = &new[..new.len() - bare.len()];
                let known = match written.get(bare) {
                    Some(before) => *before == new,
                    None => {
                        let letter = bare.chars().next().unwrap_or('C').to_ascii_uppercase();
                        sign == to.accidental(letter)
                    }
                };
                result.push_str(if known { bare } else { &new });
                written.insert(bare.to_owned(), new);
            }
        }
        if matches!(element.kind, Kind::BarLine | Kind::Key(_)) {
            sounding.clear();
            written.clear();
        }
    }
    result.push_str(text.get(done..).unwrap_or_default());
    Ok(result)
}

/// Notes, `[=^_]*[A-Ga-g]'*,*`, in runs of free bytes that can be part of notes.
fn find_notes(text: &str, free: &[bool], elements: &mut Vec<Element>) {
    let bytes = text.as_bytes();
    let of_note =
        |at: usize| free[at] && matches!(bytes[at], b'A'..=b'G' | b'a'..=b'g' | b'_' | b'=' | b'^' | b'\'' | b',');
    let run = |mut at: usize, set: &[u8]| {
        while at < bytes.len() && of_note(at) && set.contains(&bytes[at]) {
            at += 1;
        }
        at
    };
    let mut at = 0;
    while at < bytes.len() {
        let letter = run(at, b"=^_");
        if letter < bytes.len() && of_note(letter) && bytes[letter].is_ascii_alphabetic() {
            let end = run(run(letter + 1, b"'"), b",");
            elements.push(Element { start: at, end, kind: Kind::Note });
            at = end;
        } else {
            at = letter.max(at + 1);
        }
    }
}

/// Semitones above C of C D E F G A B.
const NATURAL: [i64; 7] = [0, 2, 4, 5, 7, 9, 11];

fn letter_index(letter: char) -> i64 {
    "CDEFGAB".chars().position(|c| c == letter.to_ascii_uppercase()).unwrap_or(0) as i64
}

fn letter_at(index: i64) -> char {
    ['C', 'D', 'E', 'F', 'G', 'A', 'B'][index.rem_euclid(7) as usize]
}

/// Sharps (flats are negative) that make `letter` sound as `pitch`; nearest, at most five.
fn alteration(pitch: i64, letter: i64) -> i64 {
    (pitch - NATURAL[letter as usize] + 6).rem_euclid(12) - 6
}

fn interval(from: Key, to: Key) -> i64 {
    (i64::from(to.pitch_class()) - i64::from(from.pitch_class())).rem_euclid(12)
}

fn count(text: &str, sign: char) -> i64 {
    text.chars().filter(|c| *c == sign).count() as i64
}

/// A note with its accidental (`=` included), moved.
fn note(note: &str, from: Key, to: Key) -> Result<String> {
    let wrong = || Error::Spelling { note: note.to_owned(), key: to.name().to_owned() };
    let bare = note.trim_start_matches(['=', '^', '_']);
    let letter = bare.chars().next().ok_or_else(wrong)?;
    // Up to a tritone upwards, otherwise downwards.
    let up = interval(from, to);
    let up = if up > 6 { up - 12 } else { up };
    let lower = if letter.is_ascii_lowercase() { 12 } else { 0 };
    let octaves = count(bare, '\'') - count(bare, ',');
    let pitch =
        NATURAL[letter_index(letter) as usize] + lower + count(note, '^') - count(note, '_') + 12 * octaves + up;

    let shift = i64::from(to.letter()) - i64::from(from.letter());
    let mut letter = (letter_index(letter) + shift).rem_euclid(7);
    let mut sharps = alteration(pitch, letter);
    while sharps.abs() > 2 {
        // Five and six the original does not spell.
        if sharps.abs() > 4 {
            return Err(wrong());
        }
        letter = (letter + sharps.signum()).rem_euclid(7);
        sharps = alteration(pitch, letter);
    }
    let sign = ["__", "_", "=", "^", "^^"][(sharps + 2) as usize];
    let octave = (pitch - NATURAL[letter as usize] - sharps).div_euclid(12);
    let name = letter_at(letter);
    Ok(match octave {
        ..=0 => format!("{sign}{name}{}", ",".repeat(octave.unsigned_abs() as usize)),
        _ => format!("{sign}{}{}", name.to_ascii_lowercase(), "'".repeat((octave - 1) as usize)),
    })
}

/// The root of a chord symbol (`F#`), moved.
fn chord(root: &str, from: Key, to: Key) -> Result<String> {
    let wrong = || Error::Spelling { note: root.to_owned(), key: to.name().to_owned() };
    let letter = letter_index(root.chars().next().ok_or_else(wrong)?);
    let sharps = count(root, '#') - count(root, 'b');
    let pitch = NATURAL[letter as usize] + sharps + interval(from, to);

    let shift = i64::from(to.letter()) - i64::from(from.letter());
    let mut letter = (letter + shift).rem_euclid(7);
    let mut sharps = alteration(pitch, letter);
    if sharps.abs() > 3 {
        return Err(wrong());
    }
    if sharps.abs() > 1 {
        letter = (letter + sharps.signum()).rem_euclid(7);
        sharps = alteration(pitch, letter);
    }
    if sharps.abs() > 3 {
        return Err(wrong());
    }
    let sign = if sharps < 0 { "b" } else { "#" };
    Ok(format!("{}{}", letter_at(letter), sign.repeat(sharps.unsigned_abs() as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(text: &str, mode: &str, to: &str) -> String {
        transpose_voice(text, mode, Key::from_name(to).unwrap()).unwrap()
    }

    #[test]
    fn in_its_own_key_idle_accidentals_vanish() {
        assert_eq!(voice("^f =f f =f ^F, | ^c c =c |", "G", "G"), "f =f f f F, | ^c c =c |");
    }

    #[test]
    fn notes_chords_keys_move_and_text_does_not() {
        assert_eq!(
            voice("\"Am7/G\" \"^Adagio\" !dim! [CEG]2 B, | [K:D] f c' |]", "C", "D"),
            "\"Bm7/A\" \"^Adagio\" !dim! [DFA]2 C | [K:E] g d' |]"
        );
        assert_eq!(voice("C B c'", "C", "Bb"), "B, A b");
    }

    #[test]
    fn accidentals_beyond_double_move_to_the_next_letter() {
        assert_eq!(voice("^^g", "B", "C#"), "^^a");
        assert_eq!(voice("^^e", "Cb", "C#"), "g");
        assert_eq!(voice("__B", "Gb", "C"), "_e");
    }

    #[test]
    fn octaves_beyond_the_letters() {
        assert_eq!(voice("C,, c'' b'", "C", "G"), "G,,, g' f'");
    }

    #[test]
    fn a_piece_with_a_key_of_its_own_in_a_voice_is_refused_unless_percussion() {
        let piece = |clef: &str| crate::text::lines(&format!("K:D\nV:1 {clef}\nK:none\nV:1\nFC|\n"));
        let d = Key::from_name("D").unwrap();
        assert!(matches!(transpose(&piece("treble"), d), Err(Error::VoiceKey { .. })));
        let text = transpose(&piece("perc"), Key::from_name("C").unwrap()).unwrap().concat();
        assert_eq!(text, "K:C\nV:1 perc\nK:none\nV:1\nFC|\n");
    }
}
