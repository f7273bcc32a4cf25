//! Unidecode 1.4.0's results, made by `golden/transliteration.py`.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use notation::transliterate::transliterate;
use sha2::{Digest, Sha256};

#[test]
fn characters_are_transliterated_as_by_unidecode() {
    let mut wrong = Vec::new();
    for line in include_str!("golden/transliteration.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [first, last] = [0, 1].map(|i| u32::from_str_radix(fields[i], 16).unwrap());
        let mut hash = Sha256::new();
        for c in (first..=last).filter_map(char::from_u32) {
            hash.update(transliterate(c.encode_utf8(&mut [0; 4])));
            hash.update("\n");
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != fields[2] {
            wrong.push(format!("{first:04x} to {last:04x}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
