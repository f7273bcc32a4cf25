//! Writes the syllables of a bar's notes as in `w:` lines.

use std::collections::BTreeMap;

use super::score::{BarItem, Verse, XmlNote};
use super::xml::Node;

/// The most verses; a file with more is damaged. Each verse is a line.
pub(super) const MOST_VERSES: usize = 64;

/// The verses of a bar, from the syllables of its notes and from the bar before.
pub(super) fn verses(
    syllables: &[Vec<(usize, String)>],
    before: Option<&BTreeMap<usize, Verse>>,
) -> BTreeMap<usize, Verse> {
    let most = syllables.iter().flatten().map(|(number, _)| *number).max().unwrap_or(0);
    (1..=most)
        .map(|number| {
            let mut goes_on = before.and_then(|verses| verses.get(&number)).is_some_and(|verse| verse.goes_on);
            let of_note = |note: &Vec<(usize, String)>| -> String {
                note.iter().find(|(of, _)| *of == number).map(|(_, text)| text.clone()).unwrap_or_default()
            };
            let mut words: Vec<String> = syllables.iter().map(of_note).collect();
            if words.iter().all(String::is_empty) {
                return (number, Verse::default());
            }
            for word in &mut words {
                if word.is_empty() {
                    word.push(if goes_on { '_' } else { '*' });
                } else {
                    goes_on = word.ends_with('_') && !word.ends_with("\\_");
                    if goes_on {
                        word.retain(|c| c != '_');
                    }
                }
            }
            (number, Verse { words: words.join(" "), goes_on })
        })
        .collect()
}

/// A `<lyric>` as a syllable: spaces, hyphens and underscores inside it are escaped.
pub(super) fn syllable(lyric: Node) -> String {
    let mut text = String::new();
    for part in lyric.elements() {
        match part.name() {
            "elision" => text.push('~'),
            "text" => {
                for c in part.text().chars() {
                    match c {
                        '_' => text.push_str("\\_"),
                        '-' => text.push_str("\\-"),
                        ' ' => text.push('~'),
                        _ => text.push(c),
                    }
                }
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        if matches!(lyric.find_text("syllabic"), Some("begin" | "middle")) {
            text.push('-');
        }
        if lyric.has("extend") {
            text.push('_');
        }
    }
    text
}

/// Continues held syllables into bars that have no syllables.
pub(super) fn carry(verses: &mut [BTreeMap<usize, Verse>], bars: &[Vec<BarItem>], notes: &[XmlNote]) {
    for (place, bar) in bars.iter().enumerate().take(verses.len()).skip(1) {
        let (before, here) = verses.split_at_mut(place);
        let (Some(before), Some(here)) = (before.last(), here.first_mut()) else { continue };
        for (number, _) in before.iter().filter(|(_, verse)| verse.goes_on) {
            if !here.contains_key(number) {
                let words = held(bar, notes);
                if !words.is_empty() {
                    here.insert(*number, Verse { words, goes_on: false });
                }
            }
        }
    }
}

/// An underscore for each note before the first rest.
fn held(bar: &[BarItem], notes: &[XmlNote]) -> String {
    let notes = bar.iter().filter_map(|item| match item {
        BarItem::Note(id) => Some(&notes[*id]),
        BarItem::Sign { .. } => None,
    });
    let count = notes.filter(|note| !note.grace).take_while(|note| !note.rests(&["z", "x", "zx"])).count();
    vec!["_"; count].join(" ")
}
