//! The original's results, made by `golden/preprocess.py`: on the hand-written pieces of `data/` and on the
//! corpus of the quickstart, which `scripts/corpus` fetches; 20 of its scores the original's converter
//! fails on, and they have no golden results.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::fs;
use std::path::Path;

use notation::preprocess::{Keys, convert, find, standard};
use notation::{Key, alignment, augment, clean, interleave, rests, text, transpose};
use rayon::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    name: String,
    input: String,
    flags: String,
    key: Option<String>,
    interleaved: Option<String>,
    original_key: Option<String>,
    keys: Option<String>,
    rotated: Option<String>,
    uninterleaved: Option<String>,
    unreduced: Option<[String; 2]>,
    damaged_reduced: Option<Vec<String>>,
    damaged: Option<Vec<String>>,
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// As `damage` of the golden script.
fn damage(text: &str, seed: &str, most: u64) -> String {
    const ALPHABET: &str = "[]V:|z8/(\"!{}<>-1K%\n AGb^_=,'3xü";
    let mut state = u64::from_be_bytes(Sha256::digest(seed)[..8].try_into().unwrap());
    let mut draw = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % n) as usize
    };
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..1 + draw(most) {
        let kind = draw(7);
        if kind < 3 {
            let place = draw(text.len() as u64 + 1);
            let new = (kind != 0).then(|| ALPHABET.chars().nth(draw(ALPHABET.chars().count() as u64)).unwrap());
            let removed = usize::from(kind != 1).min(text.len() - place);
            text.splice(place..place + removed, new);
        } else if kind < 6 {
            let mut lines: Vec<Vec<char>> = text.split(|c| *c == '\n').map(<[char]>::to_vec).collect();
            let (a, b) = (draw(lines.len() as u64), draw(lines.len() as u64));
            match kind {
                3 => drop(lines.remove(a)),
                4 => lines.insert(b, lines[a].clone()),
                _ => lines.swap(a, b),
            }
            text = lines.join(&'\n');
        } else if draw(4) == 0 {
            text.truncate(draw(text.len() as u64 + 1));
        }
    }
    text.into_iter().collect()
}

fn flags(alignment: notation::Result<alignment::Alignment>) -> String {
    alignment.map_or("-".into(), |a| {
        [a.bar_lines, a.bar_numbers, a.durations].map(|flag| if flag { '1' } else { '0' }).iter().collect()
    })
}

fn unreduced(text: &str) -> String {
    rests::unreduce_text(text).map_or("-".into(), |text| digest(&text))
}

/// What differs from the original in one piece.
fn differences(golden: &Golden, folder: &Path) -> Vec<String> {
    let Some(path) = find(folder, &golden.name) else { return vec![format!("{}: missing", golden.name)] };
    let bytes = fs::read(path).unwrap();
    let source = standard(&bytes).unwrap().0;
    let mut wrong = Vec::new();
    let mut same = |what: &str, ours: &str, theirs: Option<&str>| {
        if Some(ours) != theirs {
            wrong.push(format!("{}: {what}: {ours}, the original's {theirs:?}", golden.name));
        }
    };
    same("input", &digest(&source), Some(&golden.input));

    let cleaned = clean::fields(&text::lines(&source));
    same("flags", &flags(cleaned.and_then(|lines| alignment::check(&lines))), Some(&golden.flags));

    match convert(&bytes, Keys::All) {
        Err(_) if golden.key.is_none() => {}
        Err(error) => same("refused", &error.to_string(), None),
        Ok(piece) => {
            same("key", &piece.key, golden.key.as_deref());
            same("interleaved", &digest(&piece.interleaved), golden.interleaved.as_deref());
            let all: String = piece.reduced.iter().map(|(_, text)| text.as_str()).collect();
            same("keys", &digest(&all), golden.keys.as_deref());
            for (key, written) in &piece.reduced {
                let loaded = augment::reduced(&piece.interleaved, *key).unwrap_or_else(|error| error.to_string());
                same("moved as it is read", &loaded, Some(written));
            }

            let single = convert(&bytes, Keys::Original).unwrap();
            let (key, reduced) = &single.reduced[0];
            assert_eq!(Key::of_mode(&piece.key).unwrap(), *key);
            same("original key", &digest(reduced), golden.original_key.as_deref());

            let lines = text::lines(&piece.interleaved);
            same("rotated", &flags(alignment::check_interleaved(&lines)), golden.rotated.as_deref());
            let back = interleave::uninterleave(&lines).map_or("-".into(), |lines| digest(&lines.concat()));
            same("uninterleaved", &back, golden.uninterleaved.as_deref());

            let body = reduced.find("\n[V:").map_or(0, |at| at + 1);
            let count = reduced[body..].lines().count();
            let mut tagged = reduced[..body].to_owned();
            for (i, bar) in reduced[body..].lines().enumerate() {
                tagged.push_str(&format!("[r:{i}/{}]{bar}\n", count - i - 1));
            }
            let [plain, tags] = golden.unreduced.as_ref().unwrap();
            same("unreduced", &unreduced(reduced), Some(plain));
            same("unreduced from tags", &unreduced(&tagged), Some(tags));
            for (i, theirs) in golden.damaged_reduced.iter().flatten().enumerate() {
                let damaged = damage(&tagged, &format!("{} reduced {i}", golden.name), 8);
                let ours = unreduced(&damaged);
                same(&format!("damaged reduced {i}"), &ours[..ours.len().min(6)], Some(theirs));
            }
        }
    }
    for (i, theirs) in golden.damaged.iter().flatten().enumerate() {
        let damaged = damage(&source, &format!("{} {i}", golden.name), 2);
        let ours = in_two_keys(&damaged).unwrap_or("-".into());
        same(&format!("damaged {i}"), &ours, Some(theirs));
    }
    wrong
}

/// The digest of a piece interleaved, and reduced in C and Eb.
fn in_two_keys(text: &str) -> notation::Result<String> {
    let piece = convert(text.as_bytes(), Keys::Original)?;
    let lines = clean::annotations(&clean::fields(&text::lines(text))?);
    let mut digests = vec![digest(&piece.interleaved)];
    for key in ["C", "Eb"] {
        let key = Key::from_name(key).unwrap();
        digests.push(digest(&rests::reduce(&transpose::transpose(&lines, key)?)?.concat()));
    }
    Ok(digest(&digests.join(" "))[..6].to_owned())
}

fn compare(golden: &str, folder: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    let text = fs::read_to_string(path).unwrap();
    let pieces: Vec<Golden> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong: Vec<String> = pieces.par_iter().flat_map(|piece| differences(piece, folder)).collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn hand_written_pieces_are_the_originals_byte_for_byte() {
    compare("small.jsonl", &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data"));
}

#[test]
fn the_corpus_is_the_originals_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/quickstart/scores");
    assert!(folder.is_dir(), "{} is missing: run scripts/corpus", folder.display());
    compare("corpus.jsonl", &folder);
}
