//! Patches against the original's on every piece of the quickstart corpus (`golden/make_patches.py`).
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::{collections::HashMap, path::Path};

use model::patches::{Patches, Patchiliser};
use notation::preprocess::{Keys, convert, find};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Golden {
    piece: String,
    text: String,
    patches: usize,
    whole: String,
    #[serde(rename = "64")]
    short: Cuts,
    #[serde(rename = "128")]
    long: Cuts,
    generate: Vec<Option<String>>,
}

#[derive(Deserialize)]
struct Cuts {
    head: String,
    tail: Option<String>,
    cuts: Option<usize>,
    middle: Option<[String; 3]>,
}

#[derive(Deserialize)]
struct Example {
    text: String,
    whole: Vec<Vec<u8>>,
    tail_64: Vec<Vec<u8>>,
}

const HEAD: usize = 0;
const TAIL: usize = 1;
const MIDDLE: usize = 2;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

/// A piece as `preprocess` writes it, from its score.
fn corpus_piece(piece: &str) -> String {
    let (key, name) = piece.split_once('/').unwrap();
    let scores = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/quickstart/scores");
    let name = name.replace(&format!("_{key}.abc"), "");
    let score = find(&scores, &name);
    let score = score.unwrap_or_else(|| panic!("{name} of {} is missing: run scripts/corpus", scores.display()));
    convert(&std::fs::read(score).unwrap(), Keys::Original).unwrap().reduced.remove(0).1
}

/// Cut with the choices given, in turn; also the numbers that they were choices of.
fn cut(text: &str, length: usize, choices: &[usize]) -> (Patches, Vec<usize>) {
    let (mut choices, mut asked) = (choices.iter().copied(), Vec::new());
    let patches = Patchiliser::new(16).unwrap().encode_train(text, length, &mut |n| {
        asked.push(n);
        choices.next().unwrap()
    });
    (patches.unwrap(), asked)
}

fn check_cuts(piece: &str, text: &str, length: usize, golden: &Cuts) {
    let (head, asked) = cut(text, length, &[HEAD]);
    assert_eq!(digest(head.characters()), golden.head, "{piece}, {length}, head");
    let kinds = 1 + usize::from(golden.tail.is_some()) + usize::from(golden.middle.is_some());
    assert_eq!(asked.first().copied().unwrap_or(1), kinds, "{piece}, {length}: kinds of cut to choose from");
    if let Some(tail) = &golden.tail {
        assert_eq!(&digest(cut(text, length, &[TAIL]).0.characters()), tail, "{piece}, {length}, tail");
    }
    if let (Some(cuts), Some(middle)) = (golden.cuts, &golden.middle) {
        for (place, expected) in [0, (cuts - 1) / 2, cuts - 1].into_iter().zip(middle) {
            let (patches, asked) = cut(text, length, &[MIDDLE, place]);
            assert_eq!(asked, [3, cuts], "{piece}, {length}: lines to choose from");
            assert_eq!(&digest(patches.characters()), expected, "{piece}, {length}, line {place}");
        }
    }
}

/// What generation goes on from: two beginnings, and the metadata with the later half of the body.
fn prompts(tagged: &str) -> [String; 3] {
    let lines: Vec<&str> = tagged.split_inclusive('\n').collect();
    let body = lines.iter().position(|line| line.starts_with("[r:")).unwrap();
    let keep = ((lines.len() - body) / 2).max(1);
    let slid = lines[..body].concat() + &lines[lines.len() - keep..].concat();
    [tagged[..tagged.len() / 3].to_owned(), tagged[..tagged.len() * 2 / 3].to_owned(), slid]
}

#[test]
fn patches_of_the_corpus_are_the_originals_byte_for_byte() {
    let golden = std::fs::read_to_string(folder().join("patches.jsonl")).unwrap();
    let patchiliser = Patchiliser::new(16).unwrap();
    for line in golden.lines() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let (piece, text) = (&golden.piece, corpus_piece(&golden.piece));
        assert_eq!(digest(text.as_bytes()), golden.text, "{piece}: preprocessing gives another text");

        let (whole, asked) = cut(&text, usize::MAX / 16, &[]);
        assert!(asked.is_empty());
        assert_eq!((whole.len(), digest(whole.characters())), (golden.patches, golden.whole), "{piece}, whole");
        check_cuts(piece, &text, 64, &golden.short);
        check_cuts(piece, &text, 128, &golden.long);

        let tagged: String = (1..whole.len() - 1).map(|i| patchiliser.decode(whole.row(i))).collect();
        for (place, (prompt, expected)) in prompts(&tagged).iter().zip(&golden.generate).enumerate() {
            if let Some(expected) = expected {
                let prompt = patchiliser.encode_generate(prompt, 1024).unwrap();
                let characters = [prompt.patches.characters(), &prompt.partial].concat();
                assert_eq!(&digest(&characters), expected, "{piece}, prompt {place}");
            }
        }
    }
}

#[test]
fn patches_of_a_piece_shown_in_full_are_the_originals() {
    let golden = std::fs::read_to_string(folder().join("patches_examples.json")).unwrap();
    let golden: HashMap<String, Example> = serde_json::from_str(&golden).unwrap();
    for (piece, example) in golden {
        let rows = |patches: Patches| (0..patches.len()).map(|i| patches.row(i).to_vec()).collect::<Vec<_>>();
        assert_eq!(rows(cut(&example.text, 1024, &[]).0), example.whole, "{piece}");
        assert_eq!(rows(cut(&example.text, 64, &[TAIL]).0), example.tail_64, "{piece}, its end");
    }
}
