//! Writes a score as a Standard MIDI File.

use std::collections::HashMap;

use midly::num::{u4, u7, u15, u24, u28};
use midly::{Format, Header, MetaMessage, MidiMessage, Smf, Timing, TrackEvent, TrackEventKind};

use super::instruments::{self, Sound};
use super::timing::{self, PlayedBars, changes, each_event, tempos};
use crate::abc::score::{AbcEvent, AbcMark, AbcPart, AbcScore, AbcVoice, Chord, KeySignature, Meter, QUARTER};
use crate::{Error, Result};

/// MIDI ticks of a quarter note.
const RESOLUTION: i64 = 960;

/// The channel for percussion, counted from 0.
const DRUMS: u8 = 9;

/// An event: its time in ticks, its rank among events at the same time, and what it is.
type TimedEvent<'a> = (i64, u8, TrackEventKind<'a>);

pub(super) fn write(score: &AbcScore, name: &str) -> Result<Vec<u8>> {
    let played = PlayedBars::of(score);
    // What a delta time can hold: a day and a half at the usual tempo.
    if scale(played.end) >= i64::from(u28::max_value().as_int()) {
        return Err(Error::Midi { file: name.to_owned(), problem: "too long for a MIDI file".to_owned() });
    }

    let mut tracks = vec![track(conductor(score, &played), played.end)];
    let channels = channels(score);
    for (part, (channel, program)) in score.parts.iter().zip(&channels) {
        let dynamics = dynamics(score, part, &played);
        for place in part.staves.iter().flatten() {
            let Some(voice) = score.voices.get(*place) else { continue };
            tracks.push(track(voice_events(voice, part, *channel, *program, &dynamics, &played), played.end));
        }
    }
    let header = Header::new(Format::Parallel, Timing::Metrical(u15::new(RESOLUTION as u16)));
    let mut bytes = Vec::new();
    Smf { header, tracks }
        .write_std(&mut bytes)
        .map_err(|error| Error::Midi { file: name.to_owned(), problem: error.to_string() })?;
    Ok(bytes)
}

fn scale(ticks: i64) -> i64 {
    ((i128::from(ticks) * i128::from(RESOLUTION) + i128::from(QUARTER / 2)) / i128::from(QUARTER)) as i64
}

fn track(mut events: Vec<TimedEvent<'_>>, end: i64) -> Vec<TrackEvent<'_>> {
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

/// The events of the first track: title, tempo, meter and key.
fn conductor<'a>(score: &'a AbcScore, played: &PlayedBars) -> Vec<TimedEvent<'a>> {
    let meta = |time, rank, message| (time, rank, TrackEventKind::Meta(message));
    let mut events = Vec::new();
    if let Some(title) = score.titles.first() {
        events.push(meta(0, 0, MetaMessage::TrackName(title.as_bytes())));
    }
    let meters = timing::meters(score).into_iter();
    let meters: Vec<Vec<_>> = meters.map(|new| new.iter().map(|new| (0, Some(meter(new)))).collect()).collect();
    for (time, new) in changes(None, meters, played) {
        let message = |(beats, power)| MetaMessage::TimeSignature(beats, power, 24, 8);
        events.extend(new.map(|new| meta(time, 1, message(new))));
    }
    // The key is that of a voice that sounds as written, if there is one.
    let voice = score.voices.iter().min_by_key(|voice| (voice.percussion, voice.transpose.rem_euclid(12) != 0));
    for (time, key) in voice.iter().flat_map(|voice| keys(voice, played)) {
        events.extend(key.map(|(fifths, minor)| meta(time, 1, MetaMessage::KeySignature(fifths, minor))));
    }
    let tempo = |microseconds| MetaMessage::Tempo(u24::new(microseconds));
    events.extend(tempos(score, played).into_iter().map(|(time, new)| meta(time, 2, tempo(new))));
    events
}

/// The number of beats, and the note value of a beat as a power of two.
fn meter(meter: &Meter) -> (u8, u8) {
    let beats: u32 = meter.beats.split('+').filter_map(|beats| beats.parse::<u32>().ok()).sum();
    (beats.clamp(1, 255) as u8, meter.beat_type.max(1).ilog2() as u8)
}

/// The keys in which a voice sounds, and when each begins: the number of sharps, and whether it is minor.
fn keys(voice: &AbcVoice, played: &PlayedBars) -> Vec<(i64, Option<(i8, bool)>)> {
    let sounding = |key: &KeySignature| {
        let fifths = match i32::from(key.fifths) + (7 * voice.transpose + 6).rem_euclid(12) - 6 {
            sharps @ 8.. => sharps - 12,
            flats @ ..=-8 => flats + 12,
            fifths => fifths,
        };
        (!key.explicit).then_some((fifths as i8, key.mode == "minor"))
    };
    let mut bars = vec![Vec::new(); voice.bars.len()];
    each_event(voice, |bar, offset, event| {
        if let AbcEvent::Mark(AbcMark::Key(key)) = event {
            bars[bar].push((offset, sounding(key)));
        }
    });
    changes(voice.key.as_ref().and_then(sounding), bars, played)
}

/// The channel and program of each part.
fn channels(score: &AbcScore) -> Vec<(u8, u8)> {
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
            // All channels are taken: share one, with the same program if possible.
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

/// The velocities of a part, and when each begins.
fn dynamics(score: &AbcScore, part: &AbcPart, played: &PlayedBars) -> Vec<(i64, u8)> {
    let mut bars: Vec<Vec<(i64, u8)>> = vec![Vec::new(); score.lengths.len()];
    for voice in part.staves.iter().flatten().filter_map(|place| score.voices.get(*place)) {
        each_event(voice, |bar, offset, event| {
            if let AbcEvent::Mark(AbcMark::Decoration(name)) = event
                && let Some(velocity) = velocity(name)
            {
                bars[bar].push((offset, velocity));
            }
        });
    }
    changes(80, bars, played)
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

/// A note as it is played.
struct PlayedNote {
    on: i64,
    off: i64,
    key: u8,
    velocity: u8,
}

fn voice_events<'a>(
    voice: &'a AbcVoice,
    part: &'a AbcPart,
    channel: u8,
    program: u8,
    dynamics: &[(i64, u8)],
    played: &PlayedBars,
) -> Vec<TimedEvent<'a>> {
    let midi = |message| TrackEventKind::Midi { channel: u4::new(channel & 15), message };
    let name = if voice.name.is_empty() { &part.name } else { &voice.name };
    let mut events = vec![(0, 0, TrackEventKind::Meta(MetaMessage::TrackName(name.as_bytes())))];
    if channel != DRUMS {
        events.push((0, 1, midi(MidiMessage::ProgramChange { program: u7::new(program & 127) })));
    }
    for note in notes(voice, dynamics, played) {
        // Even the shortest note ends at least a MIDI tick after it begins.
        let off = note.off.max(note.on + QUARTER / RESOLUTION + 1);
        let (key, vel) = (u7::new(note.key & 127), u7::new(note.velocity & 127));
        events.push((note.on, 4, midi(MidiMessage::NoteOn { key, vel })));
        events.push((off, 3, midi(MidiMessage::NoteOff { key, vel: u7::new(64) })));
    }
    events
}

/// The notes of a voice as they are played. Tied notes are one note.
fn notes(voice: &AbcVoice, dynamics: &[(i64, u8)], played: &PlayedBars) -> Vec<PlayedNote> {
    let mut notes: Vec<PlayedNote> = Vec::new();
    let mut tied: HashMap<(usize, u8), usize> = HashMap::new();
    for (bar, start) in &played.bars {
        for (layer, events) in voice.bars[*bar].layers.iter().enumerate() {
            let mut at = *start;
            let mut graces: Vec<&Chord> = Vec::new();
            // The last chord: its length, its velocity, and the indices of the notes that end with it.
            let (mut last, mut velocity, mut ending) = (0, loudness(dynamics, *start), Vec::new());
            for event in events {
                let chord = match event {
                    AbcEvent::Chord(chord) => chord,
                    AbcEvent::Grace(chords, _) => {
                        graces.extend(chords);
                        continue;
                    }
                    AbcEvent::Mark(_) => continue,
                };
                let loudness = loudness(dynamics, at);
                let accent =
                    chord.decorations.iter().any(|name| matches!(name.as_str(), ">" | "accent" | "^" | "marcato"));
                velocity = if accent { (loudness + 14).min(127) } else { loudness };
                // Grace notes take their time from the chord after them.
                let each = grace_length(chord.ticks, &graces);
                let on = sound_graces(voice, graces.drain(..), (at, each, velocity), &mut notes);
                let short = chord.decorations.iter().any(|name| matches!(name.as_str(), "." | "wedge"));
                ending.clear();
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
                            notes.push(PlayedNote { on, off, key, velocity });
                            notes.len() - 1
                        }
                    };
                    if note.tie_start {
                        tied.insert((layer, key), place);
                    } else {
                        ending.push(place);
                    }
                }
                at += chord.ticks;
                last = chord.ticks;
            }
            // Grace notes at the end of a bar take their time from the chord before them.
            let each = grace_length(last, &graces);
            let on = at - each * graces.len() as i64;
            ending.iter().for_each(|place| notes[*place].off = notes[*place].off.min(on));
            sound_graces(voice, graces.drain(..), (on, each, velocity), &mut notes);
        }
    }
    notes
}

fn loudness(dynamics: &[(i64, u8)], at: i64) -> u8 {
    let change = dynamics.partition_point(|(time, _)| *time <= at).checked_sub(1);
    change.map_or(80, |change| dynamics[change].1)
}

/// The length of each grace note. Together they take at most half of a chord of `ticks`.
fn grace_length(ticks: i64, graces: &[&Chord]) -> i64 {
    (QUARTER / 8).min(ticks / (2 * graces.len().max(1) as i64))
}

/// Adds grace notes, given the time of the first, and the length and velocity of each. Returns when they end.
fn sound_graces<'a>(
    voice: &AbcVoice,
    graces: impl Iterator<Item = &'a Chord>,
    (mut on, each, velocity): (i64, i64, u8),
    notes: &mut Vec<PlayedNote>,
) -> i64 {
    for grace in graces {
        for key in grace.notes.iter().filter_map(|note| key(voice, note)) {
            notes.push(PlayedNote { on, off: on + each, key, velocity });
        }
        on += each;
    }
    on
}

/// The MIDI number of the sounding note.
fn key(voice: &AbcVoice, note: &crate::abc::score::AbcNote) -> Option<u8> {
    match note.drum {
        Some(sound) => Some(sound),
        None => u8::try_from(note.midi() + voice.transpose).ok().filter(|key| *key < 128),
    }
}
