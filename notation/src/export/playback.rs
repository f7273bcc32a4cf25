//! The order in which bars are played, with repeats and endings.

use crate::abc::score::{BarLine, BarLineStyle};

/// The most times that a repeat is played.
const MOST: u32 = 8;

/// How many bars ahead another ending is looked for.
const FARTHEST: usize = 500;

/// The bars in the order they are played.
pub(super) fn order(bar_lines: &[(BarLine, BarLine)]) -> Vec<usize> {
    let endings = endings(bar_lines);
    let mut order = Vec::with_capacity(bar_lines.len());
    let (mut start, mut pass, mut bar) = (0, 1, 0);
    while bar < bar_lines.len() {
        let (left, right) = &bar_lines[bar];
        if left.repeat_start && bar != start {
            (start, pass) = (bar, 1);
        }
        if let Some(ending) = &endings[bar]
            && !ending.contains(&pass)
        {
            // Continue with the ending for this pass; if there is none, everything is played.
            let other = (bar..bar_lines.len().min(bar + FARTHEST))
                .take_while(|next| *next == bar || endings[*next].is_some())
                .find(|next| endings[*next].as_ref().is_some_and(|ending| ending.contains(&pass)));
            if let Some(other) = other {
                bar = other;
                continue;
            }
            // The endings are all for other passes: they are skipped.
            if pass > 1 {
                let after = (bar..bar_lines.len()).find(|next| endings[*next].is_none()).unwrap_or(bar_lines.len());
                (start, pass, bar) = (after, 1, after);
                continue;
            }
        }
        order.push(bar);
        if right.repeat_end {
            let times = times(&endings, start, bar);
            if pass < times {
                pass += 1;
                bar = start;
                continue;
            }
            (start, pass) = (bar + 1, 1);
        } else if endings[bar].is_some() && endings.get(bar + 1).is_none_or(Option::is_none) {
            // The last ending is over.
            (start, pass) = (bar + 1, 1);
        }
        bar += 1;
    }
    order
}

/// The endings that each bar belongs to.
fn endings(bar_lines: &[(BarLine, BarLine)]) -> Vec<Option<Vec<u32>>> {
    let mut open: Option<Vec<u32>> = None;
    let mut endings = Vec::with_capacity(bar_lines.len());
    for (left, right) in bar_lines {
        if !left.ending.is_empty() {
            open = if left.ending.starts_with('"') { None } else { Some(numbers(&left.ending)) };
        } else if left.repeat_start {
            open = None;
        }
        endings.push(open.clone());
        if right.repeat_end || matches!(right.style, BarLineStyle::Double | BarLineStyle::Final) {
            open = None;
        }
    }
    endings
}

/// How often the section that ends with this bar is played.
fn times(endings: &[Option<Vec<u32>>], start: usize, bar: usize) -> u32 {
    // A repeat at the end of an ending is played as often as the largest number of that ending or the next one.
    let here = endings[start.min(bar)..=bar].iter().flatten().flatten().copied().max();
    let next = endings.get(bar + 1).and_then(Option::as_ref).and_then(|ending| ending.iter().copied().max());
    match (here, next) {
        (None, _) => 2,
        (Some(here), None) => here.max(2),
        (Some(here), Some(next)) => here.max(next),
    }
    .min(MOST)
}

/// The numbers of an ending: `1,3-5`.
pub(super) fn numbers(ending: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for part in ending.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
            numbers.extend((from..=to.min(from.saturating_add(16))).filter(|n| (1..=99).contains(n)));
        }
    }
    if numbers.is_empty() {
        numbers.push(1);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `|:` and digits before a bar, `:` and `|` after it.
    fn played(text: &str) -> Vec<usize> {
        let lines: Vec<(BarLine, BarLine)> = text
            .split_whitespace()
            .map(|bar| {
                let ending: String = bar.chars().filter(|c| c.is_ascii_digit() || *c == ',').collect();
                let left = BarLine { repeat_start: bar.starts_with('('), ending, ..BarLine::default() };
                let style = if bar.ends_with('!') { BarLineStyle::Final } else { BarLineStyle::Single };
                let right = BarLine { repeat_end: bar.ends_with(')'), style, ..BarLine::default() };
                (left, right)
            })
            .collect();
        order(&lines)
    }

    #[test]
    fn repeats_and_endings_are_played_out() {
        assert_eq!(played("a b c"), [0, 1, 2]);
        assert_eq!(played("a b) c"), [0, 1, 0, 1, 2]);
        assert_eq!(played("a (b c) d"), [0, 1, 2, 1, 2, 3]);
        assert_eq!(played("(a b 1) 2 c"), [0, 1, 2, 0, 1, 3, 4]);
        assert_eq!(played("(a 1) 2! c"), [0, 1, 0, 2, 3]);
        assert_eq!(played("(a 1,2) 3! c"), [0, 1, 0, 1, 0, 2, 3]);
        assert_eq!(played("(a 1) 2) (b)"), [0, 1, 0, 2, 3, 3]);
        assert_eq!(played("a) b)"), [0, 0, 1, 1]);
        assert_eq!(played("(a (b)"), [0, 1, 1]);
        assert_eq!(played("2 a"), [0, 1]);
        assert_eq!(played("(a 1) 2 2! c (d)"), [0, 1, 0, 2, 3, 4, 5, 5]);
    }
}
