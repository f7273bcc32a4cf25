//! When bars are played: repeats played out, and changes of tempo.

use super::playback;
use crate::abc::score::{AbcEvent, AbcMark, AbcScore, AbcVoice, Meter, QUARTER};

/// When the bars of a piece are played.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayTimes {
    /// Bars in the order they are played: the bar's number in the score, counted from 0, and when it begins, in seconds.
    pub bars: Vec<(usize, f64)>,
    /// When the last bar ends, in seconds.
    pub seconds: f64,
}

/// The bars in the order they are played, with times in ticks.
pub(super) struct PlayedBars {
    /// The bar's number in the score, and when it begins.
    pub bars: Vec<(usize, i64)>,
    /// When the last bar ends.
    pub end: i64,
}

impl PlayedBars {
    pub fn of(score: &AbcScore) -> PlayedBars {
        let mut end: i64 = 0;
        let bars = playback::order(&score.bar_lines).into_iter().map(|bar| {
            let start = end;
            end = end.saturating_add(score.lengths[bar]);
            (bar, start)
        });
        PlayedBars { bars: bars.collect(), end }
    }
}

/// When the bars are played, in seconds.
pub(super) fn times(score: &AbcScore) -> PlayTimes {
    let played = PlayedBars::of(score);
    let mut tempos = tempos(score, &played).into_iter().peekable();
    // The time up to which seconds are counted, the seconds up to there, and the seconds of a quarter from there on.
    let (mut at, mut seconds, mut quarter) = (0, 0.0, 0.5);
    let mut until = |time: i64| {
        while let Some((change, microseconds)) = tempos.next_if(|(change, _)| *change <= time) {
            seconds += (change - at) as f64 / QUARTER as f64 * quarter;
            (at, quarter) = (change, f64::from(microseconds) / 1e6);
        }
        seconds + (time - at) as f64 / QUARTER as f64 * quarter
    };
    let bars = played.bars.iter().map(|(bar, start)| (*bar, until(*start))).collect();
    PlayTimes { bars, seconds: until(played.end) }
}

/// The tempos, in microseconds a quarter, and when each begins.
pub(super) fn tempos(score: &AbcScore, played: &PlayedBars) -> Vec<(i64, u32)> {
    let mut bars: Vec<Vec<(i64, f64)>> = vec![Vec::new(); score.lengths.len()];
    for voice in &score.voices {
        each_event(voice, |bar, offset, event| {
            if let AbcEvent::Mark(AbcMark::Tempo(tempo)) = event {
                bars[bar].push((offset, tempo.quarters));
            }
        });
    }
    let first = score.tempo.as_ref().map_or(120.0, |tempo| tempo.quarters);
    let microseconds = |quarters: f64| (60e6 / quarters.clamp(4.0, 10_000.0)).round() as u32;
    changes(first, bars, played).into_iter().map(|(time, quarters)| (time, microseconds(quarters))).collect()
}

/// The meter that begins with each bar, if at least half of the voices in the bar change to a meter.
pub(super) fn meters(score: &AbcScore) -> Vec<Option<Meter>> {
    let mut meters: Vec<Option<Meter>> = (0..score.lengths.len())
        .map(|bar| {
            let mut found: Vec<&Meter> = Vec::new();
            let mut present = 0;
            for voice in &score.voices {
                let Some(bar) = voice.bars.get(bar).filter(|bar| !bar.missing) else { continue };
                present += 1;
                found.extend(bar.layers[0].iter().rev().find_map(|event| match event {
                    AbcEvent::Mark(AbcMark::Meter(meter)) => Some(meter),
                    _ => None,
                }));
            }
            found.first().filter(|_| 2 * found.len() >= present).map(|meter| (*meter).clone())
        })
        .collect();
    if let Some(first) = meters.first_mut() {
        *first = first.take().or_else(|| score.voices.iter().find_map(|voice| voice.meter.clone()));
    }
    meters
}

/// The values that hold from each time on, from the changes written in each bar (the offset in the bar, the new value).
/// After a jump, the value is the one that holds where the bar is written.
pub(super) fn changes<T: Copy + PartialEq>(
    first: T,
    mut bars: Vec<Vec<(i64, T)>>,
    played: &PlayedBars,
) -> Vec<(i64, T)> {
    // Several voices may have written into a bar.
    bars.iter_mut().for_each(|bar| bar.sort_by_key(|(offset, _)| *offset));
    let mut now = first;
    let mut before = Vec::with_capacity(bars.len());
    for bar in &bars {
        before.push(now);
        now = bar.last().map_or(now, |(_, last)| *last);
    }
    let mut changes = vec![(0, first)];
    for (bar, start) in &played.bars {
        for (offset, new) in [(0, before[*bar])].iter().chain(&bars[*bar]) {
            match changes.last_mut() {
                Some((time, last)) if *time == start + offset => *last = *new,
                _ => changes.push((start + offset, *new)),
            }
        }
    }
    changes.dedup_by_key(|(_, new)| *new);
    changes
}

/// Calls `what` with every event of a voice: the bar's number, the offset in the bar, the event.
pub(super) fn each_event<'a>(voice: &'a AbcVoice, mut what: impl FnMut(usize, i64, &'a AbcEvent)) {
    for (number, bar) in voice.bars.iter().enumerate() {
        for layer in &bar.layers {
            let mut at = 0;
            for event in layer {
                what(number, at, event);
                if let AbcEvent::Chord(chord) = event {
                    at += chord.ticks;
                }
            }
        }
    }
}
