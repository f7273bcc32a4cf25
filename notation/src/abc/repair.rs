//! Gives all voices the same bars, with the same lengths and bar lines.

use super::diagnostics::Diagnostics;
use super::score::{AbcEvent, AbcVoice, Bar, BarLine, BarLineStyle, Chord, QUARTER, WHOLE};

/// Bars that differ by less have the same length: the lengths of odd tuplets are rounded.
const SAME: i64 = QUARTER / 1000;

/// Fills bars that are short or missing with rests, up to the longest voice; returns the length of each bar. Rests of
/// `hidden` voices are invisible. With `silent`, missing bars are no reason to warn.
pub(crate) fn lengths(
    voices: &mut [AbcVoice],
    hidden: &[bool],
    silent: bool,
    diagnostics: &mut Diagnostics,
) -> Vec<i64> {
    let bars = voices.iter().map(|voice| voice.bars.len()).max().unwrap_or(0);
    for voice in voices.iter() {
        if !silent && voice.bars.iter().all(|bar| bar.missing) {
            let at = voice.bars.first().map(|bar| bar.at).unwrap_or_default();
            diagnostics.add(at, "", 0, format!("voice V:{} has no music; filled with rests", voice.id));
        }
    }
    let mut lengths: Vec<i64> = Vec::with_capacity(bars);
    let mut meter = voices.iter().find_map(|voice| voice.meter.as_ref()).map_or(WHOLE, |meter| meter.length);
    let empty: Vec<bool> = voices.iter().map(|voice| voice.bars.iter().all(|bar| bar.missing)).collect();
    for i in 0..bars {
        let (mut fixed, mut flexible) = (Vec::new(), 0);
        for voice in voices.iter() {
            let bar = &voice.bars[i];
            if bar.missing {
                continue;
            }
            if whole(bar).is_some() {
                flexible = flexible.max(length(bar));
            } else {
                fixed.push(length(bar));
            }
        }
        let longest = fixed.iter().copied().max().filter(|length| *length > 0);
        let target = longest.unwrap_or(if flexible > 0 { flexible } else { meter });
        meter = target;
        let usual = usual(&mut fixed);
        for ((voice, hidden), empty) in voices.iter_mut().zip(hidden).zip(&empty) {
            let id = &voice.id;
            let bar = &mut voice.bars[i];
            let own = length(bar);
            if let Some((layer, event)) = whole(bar) {
                if let Some(AbcEvent::Chord(rest)) = bar.layers[layer].get_mut(event) {
                    (rest.nominal, rest.ticks) = (target, target);
                }
                continue;
            }
            if bar.missing {
                if !silent && !empty {
                    diagnostics.add(bar.at, id, i + 1, "missing; filled with a rest");
                }
            } else if own + SAME < target && (own != usual || target == usual) {
                let problem = match own {
                    0 => "empty; filled with a rest".to_owned(),
                    _ => format!("{} long, not {}; filled with a rest", written(own), written(target)),
                };
                diagnostics.add(bar.at, id, i + 1, problem);
            } else if own > usual + SAME {
                let problem = format!("{} long, not {}; the other voices get rests", written(own), written(usual));
                diagnostics.add(bar.at, id, i + 1, problem);
            }
            let first = layer_length(&bar.layers[0]);
            if first + SAME < target {
                let ticks = target - first;
                let rest = Chord {
                    nominal: ticks,
                    ticks,
                    invisible: *hidden,
                    filled: true,
                    space_before: true,
                    ..Chord::default()
                };
                // Also after events that take no time: a bar may end with a clef.
                bar.layers[0].push(AbcEvent::Chord(rest));
            }
        }
        lengths.push(target);
    }
    lengths
}

/// The length that most voices have; of several, the longest.
fn usual(lengths: &mut [i64]) -> i64 {
    lengths.sort_unstable();
    let mut best = (0, 0);
    for same in lengths.chunk_by(|a, b| b - a < SAME) {
        if same.len() >= best.0 {
            best = (same.len(), same[0]);
        }
    }
    best.1
}

/// The ticks of a bar's longest layer.
fn length(bar: &Bar) -> i64 {
    bar.layers.iter().map(|layer| layer_length(layer)).max().unwrap_or(0)
}

fn layer_length(layer: &[AbcEvent]) -> i64 {
    layer.iter().map(|event| if let AbcEvent::Chord(chord) = event { chord.ticks } else { 0 }).sum()
}

/// The layer and index of a rest for the whole bar, if the bar has nothing else.
fn whole(bar: &Bar) -> Option<(usize, usize)> {
    let mut chords = bar.layers.iter().enumerate().flat_map(|(layer, events)| {
        events.iter().enumerate().filter_map(move |(place, event)| match event {
            AbcEvent::Chord(chord) => Some((layer, place, chord)),
            _ => None,
        })
    });
    let (layer, place, chord) = chords.next()?;
    (chord.whole_bar && chords.next().is_none()).then_some((layer, place))
}

/// Ticks as a fraction of a whole note.
fn written(ticks: i64) -> String {
    let (mut a, mut b) = (ticks, WHOLE);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    if WHOLE / a <= 1024 {
        format!("{}/{}", ticks / a, WHOLE / a)
    } else {
        format!("{:.4}", ticks as f64 / WHOLE as f64)
    }
}

/// The bar lines that most voices have.
pub(crate) fn bar_lines(voices: &[AbcVoice], diagnostics: &mut Diagnostics) -> Vec<(BarLine, BarLine)> {
    let bars = voices.iter().map(|voice| voice.bars.len()).max().unwrap_or(0);
    (0..bars)
        .map(|i| {
            let here: Vec<(&AbcVoice, &Bar)> = voices.iter().map(|voice| (voice, &voice.bars[i])).collect();
            let voted = |bar: &Bar| !bar.missing || bar.left != BarLine::default();
            let voters = here.iter().filter(|(_, bar)| voted(bar)).count();
            let most =
                |has: &dyn Fn(&Bar) -> bool| 2 * here.iter().filter(|(_, bar)| has(bar)).count() >= voters.max(1);
            let mut style = [0; 5];
            for (_, bar) in here.iter().filter(|(_, bar)| !bar.missing) {
                style[bar.right.style as usize] += 1;
            }
            let styles = [
                BarLineStyle::Single,
                BarLineStyle::Invisible,
                BarLineStyle::Dotted,
                BarLineStyle::Double,
                BarLineStyle::Final,
            ];
            let style = styles.into_iter().max_by_key(|s| (style[*s as usize], *s)).filter(|s| style[*s as usize] > 0);
            let ending = here.iter().map(|(_, bar)| &bar.left.ending).find(|ending| !ending.is_empty());
            let ending = ending.filter(|ending| most(&|bar| bar.left.ending == **ending)).cloned().unwrap_or_default();
            let left = BarLine { repeat_start: most(&|bar| bar.left.repeat_start), ending, ..BarLine::default() };
            let right = BarLine {
                style: style.unwrap_or_default(),
                repeat_end: most(&|bar| bar.right.repeat_end),
                ..BarLine::default()
            };
            for (voice, bar) in here.iter().filter(|(_, bar)| !bar.missing) {
                let same = bar.left.repeat_start == left.repeat_start
                    && bar.left.ending == left.ending
                    && bar.right.repeat_end == right.repeat_end;
                if !same {
                    let problem = "its repeat signs are not those of most voices, which are taken";
                    diagnostics.add(bar.at, &voice.id, i + 1, problem);
                }
            }
            (left, right)
        })
        .collect()
}
