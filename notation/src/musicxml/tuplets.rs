//! Finds the notes of tuplets, also of nested ones.

use super::score::{BarItem, XmlNote};

/// The deepest nesting of tuplets; a file with more is damaged.
const DEEPEST: usize = 32;

/// Writes signs such as `(3` before the first notes of a bar's tuplets.
pub(super) fn open(bar: &[BarItem], notes: &mut [XmlNote]) {
    let mut place = 0;
    while place < bar.len() {
        if let BarItem::Note(id) = bar[place]
            && notes[id].ratio.is_some()
            && !notes[id].grace
        {
            (place, _) = open_one(bar, notes, place, (1, 1), 0);
        }
        place += 1;
    }
}

/// Writes the sign of the tuplet that begins at an index. Returns the index of its last note, and how many notes it has.
fn open_one(bar: &[BarItem], notes: &mut [XmlNote], begin: usize, outer: (i64, i64), depth: usize) -> (usize, usize) {
    let BarItem::Note(first) = bar[begin] else { return (begin, 0) };
    let (many, normal) = notes[first].ratio.unwrap_or((1, 1));
    // MusicXML multiplies the ratios of nested tuplets.
    let own = (many / outer.0.max(1), normal / outer.1.max(1));
    notes[first].starts = notes[first].starts.saturating_sub(1);
    let (mut place, mut last, mut count) = (begin, begin, 0);
    while place < bar.len() {
        let id = match bar[place] {
            BarItem::Note(id) if !notes[id].grace => id,
            _ => {
                place += 1;
                continue;
            }
        };
        if notes[id].starts > 0 && notes[id].ratio.is_some() && depth < DEEPEST {
            let inner;
            (place, inner) = open_one(bar, notes, place, own, depth + 1);
            count += inner;
        } else if notes[id].ratio.is_some() {
            count += 1;
        }
        // As in the original, a nested tuplet's end is seen only at its first note.
        if notes[id].stops > 0 {
            notes[id].stops -= 1;
            break;
        }
        if notes[id].ratio.is_none() {
            place = last;
            break;
        }
        last = place;
        place += 1;
    }
    let sign = match (own, count) {
        ((3, 2), 3) => "(3".to_owned(),
        ((many, normal), count) => format!("({many}:{normal}:{count}"),
    };
    notes[first].tuplet.insert_str(0, &sign);
    (place, count)
}
