//! What pieces cost to read as NotaGen trains on them: `reading INDEX…` reads every piece of each index in each of the
//! fifteen keys, on one core, and prints a line of JSON an index: the CPU time, and a digest of all that was read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use notation::corpus::IndexedCorpus;
use notation::{Key, index};
use sha2::{Digest, Sha256};

/// What this thread has had of a core: other work on the machine does not count.
fn seconds_worked() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn main() {
    for path in std::env::args().skip(1) {
        let mut entries = index::read(Path::new(&path)).expect(&path);
        entries.sort_by(|a, b| a.name().cmp(b.name()));
        let corpus = IndexedCorpus::open(&entries).unwrap();
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let begun = seconds_worked();
        for entry in &entries {
            for key in Key::ALL {
                let text = corpus.read(entry, key).unwrap();
                bytes += text.len();
                hash.update(text);
            }
        }
        let seconds = seconds_worked() - begun;
        let texts = entries.len() * Key::ALL.len();
        let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        println!(
            "{{\"index\": {path:?}, \"texts\": {texts}, \"bytes\": {bytes}, \"milliseconds_each\": {:.4}, \"digest\": \"{digest}\"}}",
            seconds * 1e3 / texts as f64
        );
    }
}
