//! What has to hold for every piece of the corpus.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use midly::{MidiMessage, Smf, TrackEventKind};
use notation::bars::{self, PieceBars};
use notation::duration::bar_duration;
use notation::export::to_midi;
use notation::musicxml::is_musicxml;
use notation::preprocess::standard;
use notation::{Key, clean, interleave, rests, text, transpose};
use rayon::prelude::*;

/// The scores, cleaned, in standard ABC, with their keys.
fn pieces() -> Vec<(String, Vec<String>, Key)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/quickstart/scores");
    let entries = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}: run scripts/corpus", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| is_musicxml(&path.to_string_lossy()));
    let files: Vec<PathBuf> = files.collect();
    let piece = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        let lines = clean::annotations(&clean::fields(&text::lines(&standard(&bytes).unwrap().0)).unwrap());
        let key = bars::header(&bars::voices(&lines).unwrap().header).unwrap().key;
        let key = Key::of_mode(if key == "none" { "C" } else { &key }).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), lines, key)
    };
    files.par_iter().map(piece).collect()
}

/// A note begins, or ends: its track, when, which, and its key.
type PlayedNote = (usize, u32, bool, u8);

/// What a piece sounds as.
fn played(lines: &[String]) -> Vec<PlayedNote> {
    let bytes = to_midi(&lines.concat(), "piece").unwrap().output;
    let mut events = Vec::new();
    for (number, track) in Smf::parse(&bytes).unwrap().tracks.iter().enumerate() {
        let mut now = 0;
        for event in track {
            now += event.delta.as_int();
            let TrackEventKind::Midi { message, .. } = event.kind else { continue };
            match message {
                MidiMessage::NoteOn { key, .. } => events.push((number, now, true, key.as_int())),
                MidiMessage::NoteOff { key, .. } => events.push((number, now, false, key.as_int())),
                _ => {}
            }
        }
    }
    events.sort_unstable();
    events
}

/// How long each bar of each voice is, by the voice's symbol.
fn lengths(bars: &PieceBars) -> HashMap<String, Vec<String>> {
    let length =
        |bar: &String| bar_duration(bar).map_or_else(|error| error.to_string(), |length| format!("{length:?}"));
    bars.voices.iter().map(|voice| (voice.symbol.clone(), voice.bars.iter().map(length).collect())).collect()
}

/// Runs a check on every piece, and says for which it does not hold; so many may be exceptions.
fn hold(exceptions: usize, check: impl Fn(&[String], Key) -> Result<(), String> + Sync) {
    let pieces = pieces();
    assert!(pieces.len() > 600, "{}", pieces.len());
    let wrong = |(name, lines, key): &(String, Vec<String>, Key)| {
        check(lines, *key).err().map(|what| format!("{name}: {what}"))
    };
    let wrong: Vec<String> = pieces.par_iter().filter_map(wrong).collect();
    assert!(wrong.len() <= exceptions, "{} pieces:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_piece_moved_up_and_back_sounds_as_before() {
    // The exceptions are the original's, of which ours are the bytes: notes between quotes that are open across bars stay
    // as they are, and inline keys without a signature (Dbmin) are spelled as their twins (C#min).
    hold(9, |lines, own| {
        let here = played(&transpose::transpose(lines, own).unwrap());
        for key in Key::ALL.into_iter().step_by(4).filter(|key| *key != own) {
            let moved = transpose::transpose(lines, key).map_err(|error| error.to_string())?;
            let back = transpose::transpose(&moved, own).map_err(|error| error.to_string())?;
            let up = (i16::from(key.pitch_class()) - i16::from(own.pitch_class())).rem_euclid(12);
            let up = if up > 6 { up - 12 } else { up };
            // Percussion stays where it is.
            let shifted = |(a, b): (&PlayedNote, &PlayedNote)| {
                let by = i16::from(b.3) - i16::from(a.3);
                (a.0, a.1, a.2) == (b.0, b.1, b.2) && (by == up || by == 0)
            };
            let there = played(&moved);
            if there.len() != here.len() || !here.iter().zip(&there).all(shifted) {
                return Err(format!("in {} it is not {up} semitones up", key.name()));
            }
            // A tritone goes up both ways.
            if up != 6 && played(&back) != here {
                return Err(format!("in {} and back it sounds otherwise", key.name()));
            }
        }
        Ok(())
    });
}

#[test]
fn interleaving_and_reducing_can_be_undone() {
    hold(0, |lines, _| {
        let interleaved = interleave::interleave(lines).unwrap();
        let apart = interleave::uninterleave(&interleaved).map_err(|error| error.to_string())?;
        if interleave::interleave(&apart).ok().as_ref() != Some(&interleaved) {
            return Err("interleaved, taken apart and interleaved it is another text".into());
        }
        let here = played(lines);
        if played(&interleaved) != here || played(&apart) != here {
            return Err("interleaved it sounds otherwise".into());
        }
        let reduced = rests::reduce(lines).unwrap();
        // As in the original, a bar in which all voices rest is lost, and a piece without %%score cannot be completed.
        let Some(full) = rests::unreduce(&reduced).ok().filter(|_| reduced.iter().all(|line| line != "\n")) else {
            return Ok(());
        };
        let (before, after) = (bars::bars(lines).unwrap(), interleave::interleaved_bars(&full).unwrap());
        for voice in &after.voices {
            let of_score = &before.voices.iter().find(|other| other.symbol == voice.symbol).unwrap().bars;
            let rests = |bar: &str| !bar.contains(|c: char| c.is_alphabetic() && !"ZzXx".contains(c));
            let kept = |(a, b): (&String, &String)| a == b || (rests(a) && rests(b));
            if of_score.len() != voice.bars.len() || !of_score.iter().zip(&voice.bars).all(kept) {
                return Err(format!("with its rests left out and put back, {} has other bars", voice.symbol));
            }
        }
        Ok(())
    });
}

#[test]
fn bars_keep_their_lengths() {
    hold(0, |lines, own| {
        let here = lengths(&bars::bars(lines).unwrap());
        let interleaved = interleave::interleave(lines).unwrap();
        let same = |what: &str, there: &PieceBars| {
            if lengths(there) == here { Ok(()) } else { Err(format!("{what}, its bars have other lengths")) }
        };
        same("interleaved", &interleave::interleaved_bars(&interleaved).map_err(|error| error.to_string())?)?;
        for key in [Key::ALL[0], own, Key::ALL[14]] {
            let moved = transpose::transpose(lines, key).map_err(|error| error.to_string())?;
            same("moved", &bars::bars(&moved).map_err(|error| error.to_string())?)?;
        }
        Ok(())
    });
}
