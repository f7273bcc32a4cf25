//! What pieces cost to read as NotaGen trains on them: `reading INDEX…` reads every piece of each index in each of the
//! fifteen keys, on one core, and prints a line of JSON an index, with a digest of all that was read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Instant;

use notation::corpus::Corpus;
use notation::{Key, index};
use sha2::{Digest, Sha256};

fn main() {
    for path in std::env::args().skip(1) {
        let mut entries = index::read(Path::new(&path)).expect(&path);
        entries.sort_by(|a, b| a.name().cmp(b.name()));
        let corpus = Corpus::open(&entries).unwrap();
        let (mut hash, mut bytes, mut seconds) = (Sha256::new(), 0, 0.0);
        for entry in &entries {
            for key in Key::ALL {
                let begun = Instant::now();
                let text = corpus.read(entry, key).unwrap();
                seconds += begun.elapsed().as_secs_f64();
                bytes += text.len();
                hash.update(text);
            }
        }
        let texts = entries.len() * Key::ALL.len();
        let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        println!(
            "{{\"index\": {path:?}, \"texts\": {texts}, \"bytes\": {bytes}, \"milliseconds_each\": {:.4}, \"digest\": \"{digest}\"}}",
            seconds * 1e3 / texts as f64
        );
    }
}
