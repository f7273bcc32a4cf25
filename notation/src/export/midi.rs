//! A score as a Standard MIDI File.

use std::collections::HashMap;

use midly::num::{u4, u7, u15, u24, u28};
use midly::{Format, Header, MetaMessage, MidiMessage, Smf, Timing, TrackEvent, TrackEventKind};

use super::instruments::{self, Sound};
use super::{musicxml, playback};
use crate::abc::score::{Chord, Event, Mark, Part, QUARTER, Score, Voice};
use crate::{Error, Result};

/// MIDI ticks of a quarter note.
const RESOLUTION: i64 = 960;

const DRUMS: u8 = 9;

/// When it happens (in ticks), what comes first of what happens together, and what it is.
type Timed<'a> = (i64, u8, TrackEventKind<'a>);

pub(super) fn write(score: &Score, name: &str) -> Result<Vec<u8>> {
    let order = playback::order(&score.bar_lines);
    let (starts, end) = starts(score, &order);
    let times = Times { order: &order, starts: &starts };
    // What delta times can hold, a day and a half at the usual speed.
    if scale(end) >= i64::from(u28::max_value().as_int()) {
        return Err(Error::Midi { file: name.to_owned(), problem: "too long for a MIDI file".to_owned() });
    }

    let mut tracks = vec![track(conductor(score, &times), end)];
    let channels = channels(score);
    for (part, (channel, program)) in score.parts.iter().zip(&channels) {
        let dynamics = dynamics(score, part, &times);
        for place in part.staves.iter().flatten() {
            let Some(voice) = score.voices.get(*place) else { continue };
            tracks.push(track(voice_events(voice, part, *channel, *program, &dynamics, &times), end));
        }
    }
    let header = Header::new(Format::Parallel, Timing::Metrical(u15::new(RESOLUTION as u16)));
    let mut bytes = Vec::new();
    Smf { header, tracks }
        .write_std(&mut bytes)
        .map_err(|error| Error::Midi { file: name.to_owned(), problem: error.to_string() })?;
    Ok(bytes)
}

/// When bars begin that are played in this order, and when the last one ends.
fn starts(score: &Score, order: &[usize]) -> (Vec<i64>, i64) {
    let mut end: i64 = 0;
    let starts = order.iter().map(|bar| {
        let start = end;
        end = end.saturating_add(score.lengths[*bar]);
        start
    });
    (starts.collect(), end)
}

/// The same in seconds, as the tempo goes.
pub(super) fn times(score: &Score) -> super::Times {
    let order = playback::order(&score.bar_lines);
    let (starts, end) = starts(score, &order);
    let mut tempos: Vec<(i64, f64)> = conductor(score, &Times { order: &order, starts: &starts })
        .into_iter()
        .filter_map(|(time, _, kind)| match kind {
            TrackEventKind::Meta(MetaMessage::Tempo(microseconds)) => {
                Some((time, f64::from(microseconds.as_int()) / 1e6))
            }
            _ => None,
        })
        .collect();
    tempos.sort_by_key(|(time, _)| *time);
    // Up to where time is counted, how much it is, and seconds a quarter from there on.
    let (mut at, mut seconds, mut quarter) = (0, 0.0, 0.5);
    let mut tempos = tempos.into_iter().peekable();
    let mut until = |time: i64| {
        while let Some((change, next)) = tempos.next_if(|(change, _)| *change <= time) {
            seconds += (change - at) as f64 / QUARTER as f64 * quarter;
            (at, quarter) = (change, next);
        }
        seconds + (time - at) as f64 / QUARTER as f64 * quarter
    };
    let bars = order.iter().zip(&starts).map(|(bar, start)| (*bar, until(*start))).collect();
    super::Times { bars, seconds: until(end) }
}

fn scale(ticks: i64) -> i64 {
    ((i128::from(ticks) * i128::from(RESOLUTION) + i128::from(QUARTER / 2)) / i128::from(QUARTER)) as i64
}

/// Bars as they are played, and when.
struct Times<'a> {
    order: &'a [usize],
    starts: &'a [i64],
}

impl Times<'_> {
    fn bars(&self) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.order.iter().copied().zip(self.starts.iter().copied())
    }
}

fn track(mut events: Vec<Timed<'_>>, end: i64) -> Vec<TrackEvent<'_>> {
    events.sort_by_key(|(time, rank, _)| (scale(*time), *rank));
    let mut now = 0;
    let mut track: Vec<TrackEvent> = Vec::with_capacity(events.len() + 1);
    let mut push = |time: i64, kind| {
        let delta = (time - now).clamp(0, i64::from(u28::max_value().as_int()));
        now = now.max(time);
        track.push(TrackEvent { delta: u28::new(delta as u32), kind });
    };
    for (time, _, kind) in events {
        push(scale(time), kind);
    }
    push(scale(end), TrackEventKind::Meta(MetaMessage::EndOfTrack));
    track
}

/// Title, tempo, meter and key.
fn conductor<'a>(score: &'a Score, times: &Times) -> Vec<Timed<'a>> {
    let meta = |time, rank, message| (time, rank, TrackEventKind::Meta(message));
    let mut events = Vec::new();
    if let Some(title) = score.titles.first() {
        events.push(meta(0, 0, MetaMessage::TrackName(title.as_bytes())));
    }
    let key = score.voices.iter().find_map(|voice| voice.key.as_ref());
    if let Some(key) = key.filter(|key| !key.explicit) {
        events.push(meta(0, 1, MetaMessage::KeySignature(key.fifths, key.mode == "minor")));
    }

    let meters = musicxml::meters(score);
    let mut tempos: Vec<Vec<(i64, f64)>> = vec![Vec::new(); score.lengths.len()];
    for voice in &score.voices {
        each(voice, |bar, offset, event| {
            if let Event::Mark(Mark::Tempo(tempo)) = event {
                tempos[bar].push((offset, tempo.quarters));
            }
        });
    }
    for bar in &mut tempos {
        // Voices that have the same tempo say it once.
        bar.sort_by_key(|(offset, _)| *offset);
        bar.dedup();
    }
    let mut meter = None;
    let first = score.tempo.as_ref().map_or(120.0, |tempo| tempo.quarters);
    events.push(meta(0, 2, tempo(first)));
    for (bar, start) in times.bars() {
        if let Some(new) = &meters[bar]
            && meter != Some(new)
        {
            let beats: u32 = new.beats.split('+').filter_map(|beats| beats.parse::<u32>().ok()).sum();
            let beats = beats.clamp(1, 255) as u8;
            let power = new.beat_type.max(1).ilog2() as u8;
            events.push(meta(start, 1, MetaMessage::TimeSignature(beats, power, 24, 8)));
            meter = Some(new);
        }
        events.extend(tempos[bar].iter().map(|(offset, quarters)| meta(start + offset, 3, tempo(*quarters))));
    }
    events
}

fn tempo(quarters: f64) -> MetaMessage<'static> {
    let microseconds = 60e6 / quarters.clamp(4.0, 10_000.0);
    MetaMessage::Tempo(u24::new(microseconds.round() as u32))
}

/// Every event with its bar and its place in the bar.
fn each<'a>(voice: &'a Voice, mut what: impl FnMut(usize, i64, &'a Event)) {
    for (number, bar) in voice.bars.iter().enumerate() {
        for layer in &bar.layers {
            let mut at = 0;
            for event in layer {
                what(number, at, event);
                if let Event::Chord(chord) = event {
                    at += chord.ticks;
                }
            }
        }
    }
}

/// Channel and program of each part.
fn channels(score: &Score) -> Vec<(u8, u8)> {
    let mut free = (0..16).filter(|channel| *channel != DRUMS);
    let mut given: Vec<(u8, u8)> = Vec::new();
    for part in &score.parts {
        let voices = || part.staves.iter().flatten().filter_map(|place| score.voices.get(*place));
        let program = voices().find_map(|voice| voice.program);
        let (drums, program) = match (program, instruments::sound(&part.name)) {
            (Some(program), _) => (false, program),
            (None, Some(Sound::Program(program))) => (false, program),
            (None, Some(Sound::Drums)) => (voices().any(|voice| voice.percussion), 0),
            (None, None) => (false, 0),
        };
        let channel = match free.next().filter(|_| !drums) {
            _ if drums || voices().any(|voice| voice.percussion) => DRUMS,
            Some(channel) => channel,
            // All are taken: with one of the same sound, if there is one.
            None => {
                let taken: Vec<_> = given.iter().filter(|(channel, _)| *channel != DRUMS).collect();
                let same = taken.iter().find(|(_, other)| *other == program);
                same.map_or((given.len() % 9) as u8, |(channel, _)| *channel)
            }
        };
        given.push((channel, program));
    }
    given
}

/// The velocities of a part from the times on at which they change.
fn dynamics(score: &Score, part: &Part, times: &Times) -> Vec<(i64, u8)> {
    let mut bars: Vec<Vec<(i64, u8)>> = vec![Vec::new(); score.lengths.len()];
    for voice in part.staves.iter().flatten().filter_map(|place| score.voices.get(*place)) {
        each(voice, |bar, offset, event| {
            if let Event::Mark(Mark::Decoration(name)) = event
                && let Some(velocity) = velocity(name)
            {
                bars[bar].push((offset, velocity));
            }
        });
    }
    let mut changes: Vec<(i64, u8)> = Vec::new();
    for (bar, start) in times.bars() {
        changes.extend(bars[bar].iter().map(|(offset, velocity)| (start + offset, *velocity)));
    }
    changes.sort_by_key(|(time, _)| *time);
    changes
}

fn velocity(name: &str) -> Option<u8> {
    Some(match name {
        "pppp" => 20,
        "ppp" => 30,
        "pp" => 42,
        "p" => 54,
        "mp" => 66,
        "mf" => 78,
        "f" => 92,
        "ff" => 108,
        "fff" | "ffff" => 120,
        _ => return None,
    })
}

struct Sounding {
    on: i64,
    off: i64,
    key: u8,
    velocity: u8,
}

fn voice_events<'a>(
    voice: &'a Voice,
    part: &'a Part,
    channel: u8,
    program: u8,
    dynamics: &[(i64, u8)],
    times: &Times,
) -> Vec<Timed<'a>> {
    let midi = |message| TrackEventKind::Midi { channel: u4::new(channel & 15), message };
    let name = if voice.name.is_empty() { &part.name } else { &voice.name };
    let mut events = vec![(0, 0, TrackEventKind::Meta(MetaMessage::TrackName(name.as_bytes())))];
    if channel != DRUMS {
        events.push((0, 1, midi(MidiMessage::ProgramChange { program: u7::new(program & 127) })));
    }
    for note in notes(voice, dynamics, times) {
        // Even the shortest note ends after it begins.
        let off = note.off.max(note.on + QUARTER / RESOLUTION + 1);
        let (key, vel) = (u7::new(note.key & 127), u7::new(note.velocity & 127));
        events.push((note.on, 4, midi(MidiMessage::NoteOn { key, vel })));
        events.push((off, 3, midi(MidiMessage::NoteOff { key, vel: u7::new(64) })));
    }
    events
}

/// The notes of a voice as they are played, tied ones as one.
fn notes(voice: &Voice, dynamics: &[(i64, u8)], times: &Times) -> Vec<Sounding> {
    let mut notes: Vec<Sounding> = Vec::new();
    let mut tied: HashMap<(usize, u8), usize> = HashMap::new();
    for (bar, start) in times.bars() {
        let mut change = dynamics.partition_point(|(time, _)| *time < start);
        for (layer, events) in voice.bars[bar].layers.iter().enumerate() {
            let mut at = start;
            let mut graces: Vec<&Chord> = Vec::new();
            if layer > 0 {
                change = dynamics.partition_point(|(time, _)| *time < start);
            }
            for event in events {
                let chord = match event {
                    Event::Chord(chord) => chord,
                    Event::Grace(chords, _) => {
                        graces.extend(chords);
                        continue;
                    }
                    Event::Mark(_) => continue,
                };
                while dynamics.get(change).is_some_and(|(time, _)| *time <= at) {
                    change += 1;
                }
                let loudness = change.checked_sub(1).map_or(80, |last| dynamics[last].1);
                let accent =
                    chord.decorations.iter().any(|name| matches!(name.as_str(), ">" | "accent" | "^" | "marcato"));
                let velocity = if accent { (loudness + 14).min(127) } else { loudness };
                let mut on = at;
                if !chord.notes.is_empty() && !graces.is_empty() {
                    // Grace notes take their time from the note, half of it at most.
                    let each = (QUARTER / 8).min(chord.ticks / (2 * graces.len() as i64));
                    for grace in graces.drain(..) {
                        for key in grace.notes.iter().filter_map(|note| key(voice, note)) {
                            notes.push(Sounding { on, off: on + each, key, velocity });
                        }
                        on += each;
                    }
                }
                let short = chord.decorations.iter().any(|name| matches!(name.as_str(), "." | "wedge"));
                for note in &chord.notes {
                    let Some(key) = key(voice, note) else { continue };
                    let end = at + chord.ticks;
                    let off = if short && !note.tie_start { on + (end - on) / 2 } else { end };
                    let place = match tied.remove(&(layer, key)).filter(|_| note.tie_stop) {
                        Some(place) if notes[place].off == at => {
                            notes[place].off = off;
                            place
                        }
                        _ => {
                            notes.push(Sounding { on, off, key, velocity });
                            notes.len() - 1
                        }
                    };
                    if note.tie_start {
                        tied.insert((layer, key), place);
                    }
                }
                at += chord.ticks;
            }
        }
    }
    notes
}

/// The MIDI number of what sounds.
fn key(voice: &Voice, note: &crate::abc::score::Note) -> Option<u8> {
    match note.drum {
        Some(sound) => Some(sound),
        None => u8::try_from(note.midi() + voice.transpose).ok().filter(|key| *key < 128),
    }
}
