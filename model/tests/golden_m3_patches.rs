//! M3's patches against the original's (`golden/make_m3_patches.py`).
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::path::Path;

use model::m3::{Patchiliser, feature_text};
use model::patches::Patches;
use notation::corpus::PieceSource;
use notation::preprocess::{Keys, convert, find, standard};
use sha2::{Digest, Sha256};

fn digest(patches: &Patches) -> String {
    Sha256::digest(patches.characters()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

#[test]
fn patches_of_the_corpus_are_the_originals_byte_for_byte() {
    let patchiliser = Patchiliser::new(64).unwrap();
    let scores = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/quickstart/scores");
    let folder = tempfile::tempdir().unwrap();
    let interleaved = folder.path().join("interleaved.abc");
    for line in golden("m3_patches.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let source = find(&scores, fields[0].trim_end_matches(".abc"));
        let source =
            source.unwrap_or_else(|| panic!("{} of {} is missing: run scripts/corpus", fields[0], scores.display()));
        let bytes = std::fs::read(source).unwrap();
        let score = folder.path().join(fields[0]);
        std::fs::write(&score, &*standard(&bytes).unwrap().0).unwrap();
        let patches = patchiliser.encode(&feature_text(&PieceSource::File(score.clone())).unwrap()).unwrap();
        assert_eq!((patches.len().to_string().as_str(), digest(&patches).as_str()), (fields[1], fields[2]), "{line}");

        let text = convert(&std::fs::read(&score).unwrap(), Keys::Original).unwrap().interleaved;
        std::fs::write(&interleaved, text).unwrap();
        let text = feature_text(&PieceSource::File(interleaved.clone())).unwrap();
        let whole = patchiliser.encode(&text).unwrap();
        assert_eq!((whole.len().to_string().as_str(), digest(&whole).as_str()), (fields[3], fields[4]), "{line}");

        let cut = |choices: &[usize]| {
            let mut choices = choices.iter().copied();
            digest(&patchiliser.encode_cut(&text, 64, Some(&mut |_| choices.next().unwrap())).unwrap())
        };
        if let [head, tail, first, last] = fields[5..] {
            let uncut = digest(&patchiliser.encode_cut(&text, 64, None).unwrap());
            let cuts = [uncut, cut(&[0]), cut(&[1]), cut(&[2, 0]), cut(&[2, whole.len() - 64 - 1])];
            assert_eq!(cuts, [head, head, tail, first, last], "{line}");
        }
    }
}

#[test]
fn odd_texts_give_the_originals_patches_or_fail_as_there() {
    let patchiliser = Patchiliser::new(64).unwrap();
    for line in golden("m3_patches_odd.jsonl").lines() {
        let (text, patches, hash): (String, Option<usize>, Option<String>) = serde_json::from_str(line).unwrap();
        let ours = patchiliser.encode(&text).ok();
        let ours = (ours.as_ref().map(Patches::len), ours.as_ref().map(digest));
        assert_eq!(ours, (patches, hash), "{text:?}");
    }
}
