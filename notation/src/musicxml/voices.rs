//! Writes the voices of a part as lines of ABC.

use super::score::{BarItem, Sign, XmlNote, XmlPart};
use super::{length, lyrics, tuplets};

/// The most characters of a line, unless one bar has more.
const LINE: usize = 100;

/// A voice that was written.
pub(super) struct WrittenVoice {
    /// The index of the voice in the part.
    pub slot: usize,
    /// Its number in ABC.
    pub number: usize,
}

/// Writes every voice that has notes, numbered from `next` on.
pub(super) fn write(part: &mut XmlPart, next: &mut usize, with_lyrics: bool, out: &mut String) -> Vec<WrittenVoice> {
    let mut written = Vec::new();
    for slot in 0..part.voices.len() {
        if part.voices[slot].sounds == 0 {
            continue;
        }
        let XmlPart { voices, notes, divisions, repeats, .. } = &mut *part;
        let voice = &mut voices[slot];
        let bars: Vec<String> = voice
            .bars
            .iter()
            .zip(divisions.iter())
            .map(|(bar, divisions)| {
                tuplets::open(bar, notes);
                write_bar(bar, notes, repeats, *divisions)
            })
            .collect();
        let mut verses: Vec<usize> = Vec::new();
        if with_lyrics {
            lyrics::carry(&mut voice.verses, &voice.bars, notes);
            verses = voice.verses.iter().flat_map(|verses| verses.keys().copied()).collect();
            verses.sort_unstable();
            verses.dedup();
        }
        out.push_str(&format!("V:{next}\n"));
        let mut begin = 0;
        while begin < bars.len() {
            let mut end = begin + 1;
            let mut characters = bars[begin].chars().count();
            while let Some(bar) = bars.get(end) {
                let more = bar.chars().count();
                if characters + more >= LINE {
                    break;
                }
                characters += more;
                end += 1;
            }
            bars[begin..end].iter().for_each(|bar| out.push_str(bar));
            out.push_str(&format!(" %{end}\n"));
            for number in &verses {
                out.push_str("w: ");
                for bar in &voice.verses[begin..end] {
                    out.push_str(bar.get(number).map_or("", |verse| &verse.words));
                    out.push('|');
                }
                out.push('\n');
            }
            begin = end;
        }
        written.push(WrittenVoice { slot, number: *next });
        *next += 1;
    }
    written
}

fn write_bar(bar: &[BarItem], notes: &[XmlNote], repeats: &[String], divisions: i64) -> String {
    let mut text = String::with_capacity(16 * bar.len());
    let mut spans = false;
    for item in bar {
        match item {
            BarItem::Sign { text: Sign::Text(sign), .. } => {
                spans |= sign.contains('!');
                text.push_str(sign);
            }
            BarItem::Sign { text: Sign::Repeat(place), .. } => text.push_str(&repeats[*place]),
            BarItem::Note(id) => write_note(&notes[*id], divisions, &mut text),
        }
    }
    if spans { without_empty_spans(text) } else { text }
}

fn write_note(note: &XmlNote, divisions: i64, text: &mut String) {
    if !note.beamed {
        text.push(' ');
    }
    text.push_str(&note.tuplet);
    note.before.iter().for_each(|sign| text.push_str(sign));
    let chord = !note.chord.is_empty();
    if chord && note.heads().all(|head| head.ends_with('-')) {
        text.push('[');
        note.heads().for_each(|head| text.push_str(&head[..head.len() - 1]));
        text.push_str("]-");
    } else {
        if chord {
            text.push('[');
        }
        note.heads().for_each(|head| text.push_str(head));
        if chord {
            text.push(']');
        }
    }
    // The tie goes behind the length.
    let tie = text.ends_with('-');
    if tie {
        text.pop();
    }
    length::write(note, divisions, text);
    if tie {
        text.push('-');
    }
    text.push_str(&note.after);
}

/// Writes pedals that are pressed or released twice only once, and removes octave shifts without notes.
fn without_empty_spans(text: String) -> String {
    const DOUBLE: [(&str, usize); 3] =
        [("!ped!!ped!", "!ped!".len()), ("!ped-up!!ped-up!", "!ped-up!".len()), ("!8va(!!8va)!", 0)];
    if !DOUBLE.iter().any(|(sign, _)| text.contains(sign)) {
        return text;
    }
    let mut clean = String::with_capacity(text.len());
    for part in text.split_inclusive('!') {
        clean.push_str(part);
        for (sign, kept) in DOUBLE {
            if clean.ends_with(sign) {
                clean.truncate(clean.len() - sign.len() + kept);
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_signs_are_written_once() {
        assert_eq!(without_empty_spans("!ped!!ped!!ped! C".into()), "!ped! C");
        assert_eq!(without_empty_spans("A!8va(!!8va(!!8va)!!8va)! B".into()), "A B");
        assert_eq!(without_empty_spans("!ped-up!!ped-up!\"^a!\"".into()), "!ped-up!\"^a!\"");
    }
}
