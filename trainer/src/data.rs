//! Training pieces: the original's index files, and a piece as patches.
use crate::error::At;
use crate::settings::KeyAugmentation;
use crate::stream::{Purpose, stream};
use crate::{Error, Result};
use model::patches::{Patches, Patchiliser};
use notation::Key;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One line of an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The augmented folder and the piece's name, without key and ending.
    pub path: PathBuf,
    /// The piece's own key, such as `G` or `Emin`.
    pub key: String,
}

impl Entry {
    /// The piece's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where the piece is in a key: `folder/KEY/name_KEY.abc`.
    pub fn in_key(&self, key: &str) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(key).join(format!("{}_{key}.abc", self.name()))
    }
}

/// The pieces of an index, and how they are read.
#[derive(Debug)]
pub struct Dataset {
    entries: Vec<Entry>,
    seed: u64,
    key_augmentation: KeyAugmentation,
    patchiliser: Patchiliser,
    patch_length: usize,
}

/// The entries of an index, those that match the glob where there is one. An index without any is an error.
pub fn read_index(path: &Path, pattern: Option<&str>) -> Result<Vec<Entry>> {
    let wrong = |line: usize, problem: String| Error::Index { path: path.to_owned(), line, problem };
    let glob = match pattern.map(glob::Pattern::new) {
        None => None,
        Some(Ok(glob)) => Some(glob),
        Some(Err(error)) => return Err(Error::Settings(format!("pieces: {error}"))),
    };
    let mut entries = Vec::new();
    for (i, line) in std::fs::read_to_string(path).at(path)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let entry: Entry = serde_json::from_str(line).map_err(|e| wrong(i + 1, e.to_string()))?;
        if Key::of_mode(&entry.key).is_err() {
            return Err(wrong(i + 1, format!("`{}` is no key", entry.key)));
        }
        if glob.as_ref().is_none_or(|glob| glob.matches(&entry.name())) {
            entries.push(entry);
        }
    }
    if entries.is_empty() {
        return Err(Error::Empty { path: path.to_owned(), pattern: pattern.map(str::to_owned) });
    }
    Ok(entries)
}

impl Dataset {
    /// `patch_length` is the model's context in patches.
    pub fn new(
        entries: Vec<Entry>,
        seed: u64,
        key_augmentation: KeyAugmentation,
        patchiliser: Patchiliser,
        patch_length: usize,
    ) -> Dataset {
        Dataset { entries, seed, key_augmentation, patchiliser, patch_length }
    }

    /// Pieces.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A piece as it is seen in an epoch: its key and its cut depend on (seed, epoch, index) alone.
    pub fn piece(&self, epoch: u64, index: usize) -> Result<Patches> {
        let entry = &self.entries[index];
        let mut rng = stream(self.seed, Purpose::Piece, [epoch, index as u64]);
        let path = entry.in_key(key(entry, self.key_augmentation, &mut rng));
        let text = std::fs::read_to_string(&path).at(&path)?;
        self.patchiliser
            .encode_train(&text, self.patch_length, &mut |n| rng.random_range(0..n))
            .map_err(|source| Error::Piece { path, source })
    }
}

/// The key to train a piece in (the original's `NotaGenDataset.__getitem__`, in `pretrain` and `finetune`).
fn key(entry: &Entry, augmentation: KeyAugmentation, rng: &mut ChaCha8Rng) -> &'static str {
    // `read_index` has checked that there is one.
    let own = Key::of_mode(&entry.key).unwrap_or(Key::ALL[0]);
    match augmentation {
        KeyAugmentation::None => own.name(),
        KeyAugmentation::All => Key::ALL[rng.random_range(0..Key::ALL.len())].name(),
        KeyAugmentation::Nearby => {
            // Semitones -3 to 3 with weights 1, 2, 3, 4, 3, 2, 1 of 16.
            let offset = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6][rng.random_range(0..16)];
            let semitone = (own.pitch_class() + 12 + offset - 3) % 12;
            let spelled = |often, probability, seldom, rng: &mut ChaCha8Rng| {
                if rng.random_bool(probability) { often } else { seldom }
            };
            match semitone {
                1 => spelled("Db", 0.8, "C#", rng),
                6 => spelled("F#", 0.5, "Gb", rng),
                11 => spelled("B", 0.8, "Cb", rng),
                other => ["C", "", "D", "Eb", "E", "F", "", "G", "Ab", "A", "Bb", ""][usize::from(other)],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn counts(own: &str, augmentation: KeyAugmentation) -> HashMap<&'static str, usize> {
        let entry = Entry { path: "a/b".into(), key: own.into() };
        let mut counts = HashMap::new();
        for i in 0..16_000 {
            *counts.entry(key(&entry, augmentation, &mut stream(0, Purpose::Piece, [0, i]))).or_default() += 1;
        }
        counts
    }

    #[test]
    fn nearby_keys_follow_the_original_distribution() {
        // Of A minor (C): Bb and B (or Cb) below … Eb above, in sixteenths 2, 3 and 1.
        let counts = counts("Amin", KeyAugmentation::Nearby);
        let share = |key: &str| *counts.get(key).unwrap_or(&0) as f64 / 1000.0;
        for (key, expected) in [
            ("A", 1.0),
            ("Bb", 2.0),
            ("B", 2.4),
            ("Cb", 0.6),
            ("C", 4.0),
            ("Db", 2.4),
            ("C#", 0.6),
            ("D", 2.0),
            ("Eb", 1.0),
        ] {
            assert!((share(key) - expected).abs() < 0.25, "{key}: {} of {expected}", share(key));
        }
        assert_eq!(counts.len(), 9);
    }

    #[test]
    fn all_keys_are_drawn_and_none_keeps_the_own() {
        assert_eq!(counts("G", KeyAugmentation::All).len(), 15);
        assert_eq!(counts("G", KeyAugmentation::None), HashMap::from([("G", 16_000)]));
    }

    #[test]
    fn a_piece_lies_in_the_folder_of_its_key() {
        let entry = Entry { path: "data/augmented/bwv1.6".into(), key: "F".into() };
        assert_eq!(entry.in_key("Bb"), Path::new("data/augmented/Bb/bwv1.6_Bb.abc"));
    }

    #[test]
    fn a_broken_index_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.jsonl");
        std::fs::write(&path, "{\"path\": \"a/b\", \"key\": \"C\"}\n{\"path\": \"a/b\"}\n").unwrap();
        let error = read_index(&path, None).unwrap_err().to_string();
        assert!(error.contains("index.jsonl: line 2: missing field `key`"), "{error}");
        std::fs::write(&path, "{\"path\": \"a/b\", \"key\": \"H\"}\n").unwrap();
        assert!(read_index(&path, None).unwrap_err().to_string().contains("line 1: `H` is no key"));
        std::fs::write(&path, "{\"path\": \"a/b\", \"key\": \"C\"}\n").unwrap();
        assert!(read_index(&path, Some("x*")).unwrap_err().to_string().contains("no piece matches `x*`"));
    }
}
