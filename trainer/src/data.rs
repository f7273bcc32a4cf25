//! Training pieces: the original's index files, and a piece as patches.
use crate::settings::KeyAugmentation;
use crate::stream::{Purpose, stream};
use crate::{Error, Result};
use globset::{Glob, GlobMatcher};
use model::patches::{Patches, Patchiliser};
use notation::Key;
use notation::corpus::IndexedCorpus;
use notation::index::{self, IndexEntry};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// The pieces of an index, and how they are read.
#[derive(Debug)]
pub struct Dataset {
    entries: Vec<IndexEntry>,
    corpus: IndexedCorpus,
    seed: u64,
    key_augmentation: KeyAugmentation,
    patchiliser: Patchiliser,
    patch_length: usize,
}

/// Compiles a glob on the names of pieces.
pub fn glob(pattern: &str) -> Result<GlobMatcher> {
    let glob = Glob::new(pattern).map_err(|error| Error::Config(format!("pieces: {error}")))?;
    Ok(glob.compile_matcher())
}

/// The entries of an index that match the glob, or all without one. It is an error if there are none.
pub fn read_index(path: &Path, pattern: Option<&str>) -> Result<Vec<IndexEntry>> {
    let glob = pattern.map(glob).transpose()?;
    let mut entries = index::read(path)?;
    if let Some((entry, error)) = entries.iter().find_map(|entry| Some((entry, entry.key().err()?))) {
        let problem = format!("{}: {error}", entry.path);
        return Err(Error::Entry { path: path.to_owned(), problem });
    }
    entries.retain(|entry| glob.as_ref().is_none_or(|glob| glob.is_match(entry.name())));
    if entries.is_empty() {
        return Err(Error::Empty { path: path.to_owned(), pattern: pattern.map(str::to_owned) });
    }
    Ok(entries)
}

impl Dataset {
    /// Opens the corpus. `patch_length` is the model's context in patches.
    pub fn new(
        entries: Vec<IndexEntry>,
        seed: u64,
        key_augmentation: KeyAugmentation,
        patchiliser: Patchiliser,
        patch_length: usize,
    ) -> Result<Dataset> {
        let corpus = IndexedCorpus::open(&entries)?;
        Ok(Dataset { entries, corpus, seed, key_augmentation, patchiliser, patch_length })
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The length of each piece in bytes, up to what fills a context: for comparing pieces.
    pub fn lengths(&self) -> Result<Vec<u64>> {
        // All pieces that are cut count as equally long. A context holds this many bytes at most.
        let most = (self.patch_length * self.patchiliser.patch_size()) as u64;
        let length = |entry: &IndexEntry| Ok(self.corpus.size(entry, entry.key().unwrap_or(Key::ALL[0]))?.min(most));
        self.entries.iter().map(length).collect()
    }

    /// A piece as an epoch has it: its key and its cut depend on (seed, epoch, index) alone.
    pub fn piece(&self, epoch: u64, index: usize) -> Result<Patches> {
        let entry = &self.entries[index];
        let mut rng = stream(self.seed, Purpose::Piece, [epoch, index as u64]);
        let key = key(entry, self.key_augmentation, &mut rng);
        let text = self.corpus.read(entry, key)?;
        self.patchiliser
            .encode_train(&text, self.patch_length, &mut |n| rng.random_range(0..n))
            .map_err(|source| Error::Piece { path: self.corpus.file(entry, key), source })
    }
}

/// The key to train a piece in (the original's `NotaGenDataset.__getitem__`, in `pretrain` and `finetune`).
fn key(entry: &IndexEntry, augmentation: KeyAugmentation, rng: &mut ChaCha8Rng) -> Key {
    // `read_index` has checked that the key is valid.
    let own = entry.key().unwrap_or(Key::ALL[0]);
    match augmentation {
        KeyAugmentation::None => own,
        KeyAugmentation::All => Key::ALL[rng.random_range(0..Key::ALL.len())],
        KeyAugmentation::Nearby => {
            // Semitones -3 to 3 with weights 1, 2, 3, 4, 3, 2, 1 of 16.
            let offset = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6][rng.random_range(0..16)];
            let pitch = (own.pitch_class() + 12 + offset - 3) % 12;
            let mut spelled = Key::ALL.into_iter().filter(|key| key.pitch_class() == pitch);
            let (first, second) = (spelled.next().unwrap_or(own), spelled.next());
            // C#/Db, F#/Gb and B/Cb: the easier spelling more often.
            match second {
                Some(second) => {
                    let (easier, harder) =
                        if first.sharps().abs() <= second.sharps().abs() { (first, second) } else { (second, first) };
                    let probability = if easier.sharps().abs() == harder.sharps().abs() { 0.5 } else { 0.8 };
                    if rng.random_bool(probability) { easier } else { harder }
                }
                None => first,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn counts(own: &str, augmentation: KeyAugmentation) -> HashMap<&'static str, usize> {
        let entry = IndexEntry { path: "a/b".into(), key: own.into() };
        let mut counts = HashMap::new();
        for i in 0..16_000 {
            let key = key(&entry, augmentation, &mut stream(0, Purpose::Piece, [0, i]));
            *counts.entry(key.name()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn nearby_keys_follow_the_original_distribution() {
        // Of A minor (C), in sixteenths: A 1, Bb 2, B or Cb 3, C 4, Db or C# 3, D 2, Eb 1.
        let counts = counts("Amin", KeyAugmentation::Nearby);
        let share = |key: &str| *counts.get(key).unwrap_or(&0) as f64 / 1000.0;
        let expected = [
            ("A", 1.0),
            ("Bb", 2.0),
            ("B", 2.4),
            ("Cb", 0.6),
            ("C", 4.0),
            ("Db", 2.4),
            ("C#", 0.6),
            ("D", 2.0),
            ("Eb", 1.0),
        ];
        for (key, expected) in expected {
            assert!((share(key) - expected).abs() < 0.25, "{key}: {} of {expected}", share(key));
        }
        assert_eq!(counts.len(), 9);
    }

    #[test]
    fn six_sharps_and_six_flats_are_drawn_alike() {
        let counts = counts("Eb", KeyAugmentation::Nearby);
        assert!((counts["F#"] as f64 / counts["Gb"] as f64 - 1.0).abs() < 0.2, "{counts:?}");
    }

    #[test]
    fn all_keys_are_drawn_and_none_keeps_the_own() {
        assert_eq!(counts("G", KeyAugmentation::All).len(), 15);
        assert_eq!(counts("G", KeyAugmentation::None), HashMap::from([("G", 16_000)]));
    }

    #[test]
    fn an_index_is_narrowed_by_a_glob_and_its_errors_name_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.jsonl");
        let line = |name: &str, key: &str| IndexEntry { path: format!("a/{name}"), key: key.into() }.line();
        std::fs::write(&path, line("bach_bwv66.6", "C") + &line("mozart_k80", "G")).unwrap();
        let names = |pattern| read_index(&path, pattern).map(|entries| entries.len());
        assert_eq!((names(None).unwrap(), names(Some("{bach,haydn}_*")).unwrap()), (2, 1));
        assert!(names(Some("x*")).unwrap_err().to_string().contains("no piece matches `x*`"));
        std::fs::write(&path, line("b", "H")).unwrap();
        let error = read_index(&path, None).unwrap_err().to_string();
        assert!(error.contains("index.jsonl: a/b: "), "{error}");
    }
}
