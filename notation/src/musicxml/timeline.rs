//! Puts a bar of a voice in order of time: fills gaps, resolves overlaps, abbreviates dotted rhythms.

use super::score::{Abc, BarItem, XmlNote};

const SHORTENED: &str = "notes overlap: a rest was shortened";
const JOINED: &str = "notes overlap: a chord was made of them";
const LOST: &str = "notes overlap: a note was left out";

/// Whether a length is more than a 64th of a whole note.
pub(super) fn long_enough(length: i64, divisions: i64) -> bool {
    length * 16 > divisions
}

/// Sorts the items of a bar by time, and fills gaps with invisible rests.
pub(super) fn settle(
    mut items: Vec<BarItem>,
    notes: &mut Vec<XmlNote>,
    divisions: i64,
    odd: &mut impl FnMut(&'static str),
) -> Vec<BarItem> {
    items.sort_by_key(|item| match item {
        BarItem::Note(id) => notes[*id].time,
        BarItem::Sign { time, .. } => *time,
    });
    let mut bar: Vec<BarItem> = Vec::with_capacity(items.len());
    let mut now = 0;
    // Rests that get the beam of the next note.
    let mut rests: Vec<usize> = Vec::new();
    for item in items {
        let time = match &item {
            BarItem::Note(id) => notes[*id].time,
            BarItem::Sign { time, .. } => *time,
        };
        if time > now && long_enough(time - now, divisions) {
            rests.push(bar.len());
            bar.push(BarItem::Note(notes.len()));
            notes.push(XmlNote { length: time - now, head: "x".into(), ..XmlNote::default() });
        }
        let id = match item {
            BarItem::Sign { time, text } => {
                // A sign has no length: it moves to where it fits.
                now = now.max(time);
                bar.push(BarItem::Sign { time: now, text });
                continue;
            }
            BarItem::Note(id) => id,
        };
        if time < now {
            if notes[id].rests(&["z"]) {
                continue;
            }
            let before = match bar.last() {
                Some(BarItem::Note(before)) if notes[*before].time <= time => *before,
                _ => {
                    odd(LOST);
                    continue;
                }
            };
            if notes[before].rests(&["z"]) {
                odd(SHORTENED);
                notes[before].length = time - notes[before].time;
                if notes[before].length == 0 {
                    bar.pop();
                }
            } else {
                odd(JOINED);
                let heads: Vec<Abc> = notes[id].heads().cloned().collect();
                notes[before].chord.extend(heads);
                let rest = time + notes[id].length - now;
                if rest <= 0 {
                    continue;
                }
                notes[id].length = rest;
                notes[id].time = now;
            }
        }
        bar.push(BarItem::Note(id));
        let note = &notes[id];
        now = note.time + note.length;
        if note.rests(&["z", "x", "zx"]) {
            rests.push(bar.len() - 1);
        } else if !rests.is_empty() {
            let copies = note.beamed && !note.grace;
            for place in rests.drain(..).filter(|_| copies) {
                if let Some(BarItem::Note(rest)) = bar.get(place) {
                    notes[*rest].beamed = true;
                }
            }
        }
    }
    bar
}

/// Abbreviates dotted rhythms. Two beamed notes, one three times as long as the other, become equal notes with `>` or `<`.
pub(super) fn break_rhythm(bar: &[BarItem], notes: &mut [XmlNote]) {
    let ids: Vec<usize> =
        bar.iter().filter_map(|item| if let BarItem::Note(id) = item { Some(*id) } else { None }).collect();
    let mut place = 0;
    while place + 1 < ids.len() {
        let (first, second) = (&notes[ids[place]], &notes[ids[place + 1]]);
        let (short, long) = (first.length, second.length);
        if first.ratio.is_none() && second.ratio.is_none() && first.length > 0 && second.beamed {
            let sign = if short * 3 == long {
                '<'
            } else if long * 3 == short {
                '>'
            } else {
                place += 1;
                continue;
            };
            let lengthen = |note: &mut XmlNote, by_two: bool| {
                note.length = if by_two { note.length * 2 } else { note.length * 2 / 3 };
            };
            lengthen(&mut notes[ids[place]], sign == '<');
            lengthen(&mut notes[ids[place + 1]], sign == '>');
            notes[ids[place]].after.insert(0, sign);
            place += 1;
        }
        place += 1;
    }
}
