//! Transposes a piece to another key, as `abctoolkit.transpose` does, in one pass over the text.
//!
//! Accidentals are spelled anew. So transposing a piece to its own key removes accidentals that change nothing.

use std::collections::HashMap;
use std::ops::Range;

use crate::barlines::{self, ACCIDENTAL_BAR_LINES};
use crate::bars::{HeaderVoice, VoiceTexts, header, voices};
use crate::enclosed::{self, BRACKETS, EXCLAMATIONS, FILLED_QUOTES};
use crate::key::moved;
use crate::text::{filled_lines, strip};
use crate::{Error, Key, Result, rests};

/// Transposes a piece in standard ABC, so that the signature of its key becomes `to`.
///
/// # Errors
/// The key is missing or unknown; the header does not define a voice, or gives it a key of its own; a note cannot be
/// spelled.
///
/// ```
/// use notation::{Key, text, transpose};
///
/// let in_g = text::lines("K:G\nV:1\nV:1\n G F =F A |]\n");
/// let in_f = transpose::transpose(&in_g, Key::from_name("F").unwrap())?;
/// assert_eq!(in_f.concat(), "K:F\nV:1\nV:1\n F E _E G |]\n");
/// # Ok::<(), notation::Error>(())
/// ```
pub fn transpose(lines: &[String], to: Key) -> Result<Vec<String>> {
    Ok(self::lines(&TransposablePiece::new(lines)?.moved(to)?))
}

fn lines(VoiceTexts { header, voices }: &VoiceTexts) -> Vec<String> {
    let mut text = header.concat();
    for (symbol, body) in voices {
        text.extend([symbol, "\n", body]);
    }
    filled_lines(&text)
}

/// A piece that is parsed once, to be transposed to many keys.
pub(crate) struct TransposablePiece {
    /// No line contains a line end. A line can, if a character was transliterated to one.
    plain: bool,
    header: Vec<String>,
    key: String,
    voices: Vec<TransposableVoice>,
}

/// A voice with what changes in its text. In percussion nothing does.
struct TransposableVoice {
    symbol: String,
    text: String,
    music: Option<Music>,
}

impl TransposablePiece {
    pub fn new(lines: &[String]) -> Result<TransposablePiece> {
        let VoiceTexts { header: metadata, voices } = voices(lines)?;
        let header = header(&metadata)?;
        let key = if header.key == "none" { "C".to_owned() } else { header.key };
        let voice = |(symbol, text): (String, String)| {
            let defined: Option<&HeaderVoice> = header.voices.iter().find(|voice| voice.symbol == symbol);
            let music = match defined {
                None => return Err(Error::UndefinedVoice { voice: symbol }),
                Some(voice) if voice.value.contains("perc") => None,
                Some(voice) if voice.own_key => return Err(Error::VoiceKey { voice: symbol }),
                Some(_) => Some(Music::new(&text, &key)?),
            };
            Ok(TransposableVoice { symbol, text, music })
        };
        let voices = voices.into_iter().map(voice).collect::<Result<_>>()?;
        let plain = lines.iter().all(|line| line.find('\n').is_none_or(|at| at + 1 == line.len()));
        Ok(TransposablePiece { plain, header: metadata, key, voices })
    }

    pub fn moved(&self, to: Key) -> Result<VoiceTexts> {
        let from = Key::of_mode(&self.key)?;
        let line = |line: &String| match line.strip_prefix("K:").map(strip) {
            Some("none") => Ok("K:none\n".to_owned()),
            Some(key) => Ok(format!("K:{}\n", moved(key, from, to)?.0)),
            None => Ok(line.clone()),
        };
        let header = self.header.iter().map(line).collect::<Result<_>>()?;
        let voice = |voice: &TransposableVoice| {
            let text = match &voice.music {
                None => voice.text.clone(),
                Some(music) => music.moved(&voice.text, &self.key, moved(&self.key, from, to)?.1)?,
            };
            Ok((voice.symbol.clone(), text))
        };
        Ok(VoiceTexts { header, voices: self.voices.iter().map(voice).collect::<Result<_>>()? })
    }

    /// Transposes the piece and reduces it as [`rests::reduce`] does.
    pub fn reduced(&self, to: Key) -> Result<String> {
        let moved = self.moved(to)?;
        let texts = moved.voices.split_last().map_or(&[][..], |(_, before)| before);
        // The last line of the file may lack its line end, and its voice may now be followed by others.
        let whole = self.plain && texts.iter().all(|(_, text)| text.is_empty() || text.ends_with('\n'));
        let reduced = if whole { rests::reduce_voices(&moved)? } else { rests::reduce(&lines(&moved))? };
        Ok(reduced.concat())
    }
}

/// What changes in a voice's text, and the keys that the text is in.
struct Music {
    elements: Vec<TextElement>,
    stretches: Vec<Stretch>,
}

struct TextElement {
    at: Range<usize>,
    kind: ElementKind,
}

/// The kind of an element of the text.
#[derive(Clone, Copy)]
enum ElementKind {
    BarLine,
    /// An inline key.
    Key,
    /// The root of a chord symbol.
    Chord,
    /// A note: the index of its letter in C D E F G A B, its octave (0 for `C`), and the sharps with which it sounds.
    Note {
        letter: i64,
        octave: i64,
        sharps: i64,
    },
}

/// A stretch of the text in one key.
struct Stretch {
    start: usize,
    from: Key,
    /// Where the key is written; `None` for the header's key.
    mode: Option<Range<usize>>,
}

impl Music {
    fn new(text: &str, mode: &str) -> Result<Music> {
        let mut elements: Vec<TextElement> = barlines::find(text, &ACCIDENTAL_BAR_LINES)
            .map(|at| TextElement { at, kind: ElementKind::BarLine })
            .collect();
        // The bytes that may belong to notes.
        let mut free = vec![true; text.len()];

        let mut stretches = Vec::new();
        if !text.is_empty() {
            stretches.push(Stretch { start: 0, from: Key::of_mode(mode)?, mode: None });
        }
        for at in enclosed::find(text, BRACKETS) {
            let inside = &text[at.start + 1..at.end - 1];
            let second = inside.chars().nth(1);
            let key = inside.strip_prefix("K:").filter(|key| key.starts_with(|c| ('A'..='G').contains(&c)));
            if let Some(key) = key {
                let start = at.start + 3;
                // The original reads the header's key even if another key replaces it at once.
                stretches.push(Stretch { start, from: Key::of_mode(key)?, mode: Some(start..at.end - 1) });
                elements.push(TextElement { at: start..at.end - 1, kind: ElementKind::Key });
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
                        elements
                            .push(TextElement { at: start..start + 1 + usize::from(sign), kind: ElementKind::Chord });
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
        elements.sort_by_key(|element| element.at.start);
        let mut music = Music { elements, stretches };
        music.sound(text);
        Ok(music)
    }

    /// Finds the sharps with which the notes sound. An accidental holds for the same note up to the next bar line or key.
    fn sound(&mut self, text: &str) {
        let mut held: HashMap<&str, i64> = HashMap::new();
        let mut stretch = 0;
        for element in &mut self.elements {
            while self.stretches.get(stretch + 1).is_some_and(|next| next.start <= element.at.start) {
                stretch += 1;
            }
            match element.kind {
                ElementKind::BarLine | ElementKind::Key => held.clear(),
                ElementKind::Chord => {}
                ElementKind::Note { .. } => {
                    let note = &text[element.at.clone()];
                    let bare = note.trim_start_matches(['=', '^', '_']);
                    let first = bare.chars().next().unwrap_or('C');
                    let letter = letter_index(first);
                    let octave = i64::from(first.is_ascii_lowercase()) + count(bare, '\'') - count(bare, ',');
                    let sharps = match (bare.len() < note.len(), held.get(bare), self.stretches.get(stretch)) {
                        (true, ..) => count(note, '^') - count(note, '_'),
                        (false, Some(held), _) => *held,
                        (false, None, Some(stretch)) => stretch.from.sharp(letter),
                        (false, None, None) => 0,
                    };
                    held.insert(bare, sharps);
                    element.kind = ElementKind::Note { letter, octave, sharps };
                }
            }
        }
    }

    /// Transposes the text from the key `mode` to the signature `to`.
    fn moved(&self, text: &str, mode: &str, to: Key) -> Result<String> {
        let from = Key::of_mode(mode)?;
        let names = |stretch: &Stretch| moved(stretch.mode.clone().map_or(mode, |at| &text[at]), from, to);
        let moves = self.stretches.iter().map(|stretch| Ok(Transposition::new(stretch.from, names(stretch)?)));
        let moves: Vec<Transposition> = moves.collect::<Result<_>>()?;

        let mut result = String::with_capacity(text.len() + text.len() / 8);
        let mut done = 0;
        let mut stretch = 0;
        // The new notes since the last bar line or key, to see which accidentals are needed.
        let mut written = WrittenSharps::default();
        for element in &self.elements {
            if done < element.at.start {
                result.push_str(&text[done..element.at.start]);
            }
            done = element.at.end;
            while self.stretches.get(stretch + 1).is_some_and(|next| next.start <= element.at.start) {
                stretch += 1;
            }
            let Some(move_) = moves.get(stretch) else { continue };
            match element.kind {
                ElementKind::BarLine => {
                    result.push_str(&text[element.at.clone()]);
                    written.clear();
                }
                ElementKind::Key => {
                    result.push_str(&move_.name);
                    written.clear();
                }
                ElementKind::Chord => move_.chord(&text[element.at.clone()], &mut result)?,
                ElementKind::Note { letter, octave, sharps } => {
                    let note = move_.note(letter, octave, sharps).ok_or_else(|| Error::Spelling {
                        note: text[element.at.clone()].to_owned(),
                        key: move_.to.name().to_owned(),
                    })?;
                    let before = written.replace(note.letter, note.octave, note.sharps);
                    note.push(before.unwrap_or(move_.signature[note.letter as usize]) != note.sharps, &mut result);
                }
            }
        }
        result.push_str(text.get(done..).unwrap_or_default());
        Ok(result)
    }
}

/// How the notes of a stretch are transposed.
struct Transposition {
    from: Key,
    to: Key,
    /// The new key as it is written.
    name: String,
    /// Semitones upwards; more than a tritone goes downwards instead.
    up: i64,
    /// Letters upwards.
    shift: i64,
    /// The sharps of each letter in the new key.
    signature: [i64; 7],
}

/// A transposed note.
struct MovedNote {
    letter: i64,
    octave: i64,
    sharps: i64,
}

impl Transposition {
    fn new(from: Key, (name, to): (String, Key)) -> Transposition {
        let up = interval(from, to);
        Transposition {
            from,
            to,
            name,
            up: if up > 6 { up - 12 } else { up },
            shift: i64::from(to.letter()) - i64::from(from.letter()),
            signature: [0, 1, 2, 3, 4, 5, 6].map(|letter| to.sharp(letter)),
        }
    }

    fn note(&self, letter: i64, octave: i64, sharps: i64) -> Option<MovedNote> {
        let pitch = NATURAL[letter as usize] + sharps + 12 * octave + self.up;
        let mut letter = (letter + self.shift).rem_euclid(7);
        let mut sharps = alteration(pitch, letter);
        while sharps.abs() > 2 {
            // The original does not spell five and six sharps.
            if sharps.abs() > 4 {
                return None;
            }
            letter = (letter + sharps.signum()).rem_euclid(7);
            sharps = alteration(pitch, letter);
        }
        Some(MovedNote { letter, octave: (pitch - NATURAL[letter as usize] - sharps).div_euclid(12), sharps })
    }

    /// Writes the transposed root of a chord symbol, such as `F#`.
    fn chord(&self, root: &str, result: &mut String) -> Result<()> {
        let wrong = || Error::Spelling { note: root.to_owned(), key: self.to.name().to_owned() };
        let letter = letter_index(root.chars().next().ok_or_else(wrong)?);
        let pitch = NATURAL[letter as usize] + count(root, '#') - count(root, 'b') + interval(self.from, self.to);
        let mut letter = (letter + self.shift).rem_euclid(7);
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
        result.push(letter_at(letter));
        push_times(if sharps < 0 { 'b' } else { '#' }, sharps.abs(), result);
        Ok(())
    }
}

impl MovedNote {
    fn push(&self, sign: bool, result: &mut String) {
        if sign {
            result.push_str(["__", "_", "=", "^", "^^"][(self.sharps + 2) as usize]);
        }
        let letter = letter_at(self.letter);
        if self.octave <= 0 {
            result.push(letter);
            push_times(',', -self.octave, result);
        } else {
            result.push(letter.to_ascii_lowercase());
            push_times('\'', self.octave - 1, result);
        }
    }
}

/// The sharps of the notes of a bar, by letter and octave.
#[derive(Default)]
struct WrittenSharps {
    near: [[Option<i8>; 16]; 7],
    any_near: bool,
    far: HashMap<(i64, i64), i64>,
}

impl WrittenSharps {
    fn clear(&mut self) {
        if std::mem::take(&mut self.any_near) {
            self.near = Default::default();
        }
        self.far.clear();
    }

    /// Stores a note's sharps; returns those that were stored before.
    fn replace(&mut self, letter: i64, octave: i64, sharps: i64) -> Option<i64> {
        match usize::try_from(octave + 8) {
            Ok(row @ 0..16) => {
                self.any_near = true;
                self.near[letter as usize][row].replace(sharps as i8).map(i64::from)
            }
            _ => self.far.insert((letter, octave), sharps),
        }
    }
}

/// Finds the notes, `[=^_]*[A-Ga-g]'*,*`, among the free bytes.
fn find_notes(text: &str, free: &[bool], elements: &mut Vec<TextElement>) {
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
            elements.push(TextElement { at: at..end, kind: ElementKind::Note { letter: 0, octave: 0, sharps: 0 } });
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

/// The sharps (flats are negative) that make `letter` sound as `pitch`: at least -6, at most 5.
fn alteration(pitch: i64, letter: i64) -> i64 {
    (pitch - NATURAL[letter as usize] + 6).rem_euclid(12) - 6
}

fn interval(from: Key, to: Key) -> i64 {
    (i64::from(to.pitch_class()) - i64::from(from.pitch_class())).rem_euclid(12)
}

fn count(text: &str, sign: char) -> i64 {
    text.chars().filter(|c| *c == sign).count() as i64
}

fn push_times(c: char, times: i64, result: &mut String) {
    result.extend(std::iter::repeat_n(c, usize::try_from(times).unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(text: &str, mode: &str, to: &str) -> String {
        Music::new(text, mode).unwrap().moved(text, mode, Key::from_name(to).unwrap()).unwrap()
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
