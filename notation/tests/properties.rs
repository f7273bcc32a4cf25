//! What has to hold for every piece, whatever it is: of the corpus and the hand-written ones.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use midly::{MidiMessage, Smf, TrackEventKind};
use notation::bars::{self, Bars};
use notation::duration::bar_duration;
use notation::export::to_midi;
use notation::preprocess::standard;
use notation::{Key, alignment, clean, interleave, rests, text, transpose};
use rayon::prelude::*;

/// The scores, cleaned, in standard ABC, with their keys; those that do not split into bars are left out.
fn pieces() -> Vec<(String, Vec<String>, Key)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("tests/data"), root.join("../data/quickstart/scores")];
    let list = |folder: &PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|_| panic!("{}: run scripts/corpus", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let files: Vec<PathBuf> = folders.iter().flat_map(list).filter(|path| path.is_file()).collect();
    let piece = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        let lines = clean::annotations(&clean::fields(&text::lines(&standard(&bytes).ok()?.0)).ok()?);
        let key = bars::header(&bars::voices(&lines).ok()?.header).ok()?.key;
        let key = Key::of_mode(if key == "none" { "C" } else { &key }).ok()?;
        interleave::interleave(&lines).and_then(|_| transpose::transpose(&lines, key)).ok()?;
        Some((path.file_name().unwrap().to_string_lossy().into_owned(), lines, key))
    };
    files.par_iter().filter_map(piece).collect()
}

/// What a piece sounds as: track, on, off and key of every note.
fn played(lines: &[String]) -> Vec<(usize, u32, u32, u8)> {
    let bytes = to_midi(&lines.concat(), "piece").unwrap().output;
    let mut notes = Vec::new();
    for (number, track) in Smf::parse(&bytes).unwrap().tracks.iter().enumerate() {
        let (mut now, mut on) = (0, HashMap::new());
        for event in track {
            now += event.delta.as_int();
            match event.kind {
                TrackEventKind::Midi { message: MidiMessage::NoteOn { key, .. }, .. } => {
                    on.insert(key.as_int(), now);
                }
                TrackEventKind::Midi { message: MidiMessage::NoteOff { key, .. }, .. } => {
                    notes.push((number, on.remove(&key.as_int()).unwrap(), now, key.as_int()));
                }
                _ => {}
            }
        }
    }
    notes.sort_unstable();
    notes
}

/// How long each bar of each voice is, by the voice's symbol.
fn lengths(bars: &Bars) -> HashMap<String, Vec<String>> {
    let length =
        |bar: &String| bar_duration(bar).map_or_else(|error| error.to_string(), |length| format!("{length:?}"));
    bars.voices.iter().map(|voice| (voice.symbol.clone(), voice.bars.iter().map(length).collect())).collect()
}

/// Runs a check on every piece, and says for which it does not hold.
fn hold(check: impl Fn(&[String], Key) -> Result<(), String> + Sync) {
    let pieces = pieces();
    assert!(pieces.len() > 600, "{}", pieces.len());
    let wrong = |(name, lines, key): &(String, Vec<String>, Key)| {
        check(lines, *key).err().map(|what| format!("{name}: {what}"))
    };
    let wrong: Vec<String> = pieces.par_iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{} pieces:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_piece_moved_up_and_back_sounds_as_before() {
    hold(|lines, own| {
        let here = played(&transpose::transpose(lines, own).unwrap());
        for key in Key::ALL.into_iter().step_by(4).filter(|key| *key != own) {
            let moved = transpose::transpose(lines, key).map_err(|error| error.to_string())?;
            let back = transpose::transpose(&moved, own).map_err(|error| error.to_string())?;
            if played(&back) != here {
                return Err(format!("in {} and back it sounds otherwise", key.name()));
            }
            let up = (i16::from(key.pitch_class()) - i16::from(own.pitch_class())).rem_euclid(12);
            let up = if up > 6 { up - 12 } else { up };
            // Percussion stays where it is.
            let shifted = |(a, b): (&(usize, u32, u32, u8), &(usize, u32, u32, u8))| {
                let by = i16::from(b.3) - i16::from(a.3);
                (a.0, a.1, a.2) == (b.0, b.1, b.2) && (by == up || by == 0)
            };
            let there = played(&moved);
            if there.len() != here.len() || !here.iter().zip(&there).all(shifted) {
                return Err(format!("in {} it is not {up} semitones up", key.name()));
            }
        }
        Ok(())
    });
}

#[test]
fn interleaving_and_reducing_can_be_undone() {
    hold(|lines, own| {
        let interleaved = interleave::interleave(lines).unwrap();
        let apart = interleave::uninterleave(&interleaved).map_err(|error| error.to_string())?;
        if interleave::interleave(&apart).ok().as_ref() != Some(&interleaved) {
            return Err("interleaved, taken apart and interleaved it is another text".into());
        }
        let here = played(lines);
        if played(&interleaved) != here || played(&apart) != here {
            return Err("interleaved it sounds otherwise".into());
        }
        let moved = transpose::transpose(lines, own).unwrap();
        let full = rests::unreduce(&rests::reduce(&moved).unwrap()).map_err(|error| error.to_string())?;
        if played(&full) != played(&moved) {
            return Err("with its rests left out and put back it sounds otherwise".into());
        }
        Ok(())
    });
}

#[test]
fn bars_keep_their_lengths() {
    hold(|lines, own| {
        let here = lengths(&bars::bars(lines).unwrap());
        let interleaved = interleave::interleave(lines).unwrap();
        let same = |what: &str, there: &Bars| {
            if lengths(there) == here { Ok(()) } else { Err(format!("{what}, its bars have other lengths")) }
        };
        same("interleaved", &interleave::interleaved_bars(&interleaved).map_err(|error| error.to_string())?)?;
        for key in [Key::ALL[0], own, Key::ALL[14]] {
            let moved = transpose::transpose(lines, key).map_err(|error| error.to_string())?;
            same("moved", &bars::bars(&moved).map_err(|error| error.to_string())?)?;
        }
        if alignment::check(lines).is_ok_and(|found| found.durations) {
            let full = rests::unreduce(&rests::reduce(lines).unwrap()).map_err(|error| error.to_string())?;
            same("with its rests put back", &interleave::interleaved_bars(&full).map_err(|error| error.to_string())?)?;
        }
        Ok(())
    });
}
