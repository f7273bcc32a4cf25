//! Tuplets: which notes they span, nested ones too.

use super::score::{Item, XmlNote};

/// Nested deeper than this, tuplets are damage.
const DEEPEST: usize = 32;

/// Puts `(3` and the like before the first notes of a bar's tuplets.
pub(super) fn open(bar: &[Item], notes: &mut [XmlNote]) {
    let mut place = 0;
    while place < bar.len() {
        if let Item::Note(id) = bar[place]
            && notes[id].ratio.is_some()
            && !notes[id].grace
        {
            (place, _) = open_one(bar, notes, place, (1, 1), 0);
        }
        place += 1;
    }
}

/// Opens the tuplet that begins at a place; gives the place of its last note, and how many notes it has.
fn open_one(bar: &[Item], notes: &mut [XmlNote], begin: usize, outer: (i64, i64), depth: usize) -> (usize, usize) {
    let Item::Note(first) = bar[begin] else { return (begin, 0) };
    let (many, normal) = notes[first].ratio.unwrap_or((1, 1));
    // MusicXML multiplies the ratios of nested tuplets.
    let own = (many / outer.0.max(1), normal / outer.1.max(1));
    notes[first].starts = notes[first].starts.saturating_sub(1);
    let (mut place, mut last, mut count) = (begin, begin, 0);
    while place < bar.len() {
        let id = match bar[place] {
            Item::Note(id) if !notes[id].grace => id,
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
        // Of a nested tuplet, as in the original, only the first note's end is seen.
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
