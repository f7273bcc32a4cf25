//! The chosen and the rejected pieces, and the pairs that steps draw of them.
use crate::error::At;
use crate::stream::{Purpose, stream};
use crate::{Error, Result};
use model::patches::{Patches, Patchiliser};
use rand::Rng;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The original's preference file, `{"chosen": [paths], "rejected": [paths]}`.
#[derive(Debug, Deserialize)]
struct Lists {
    chosen: Vec<PathBuf>,
    rejected: Vec<PathBuf>,
}

/// Every piece of a preference file. Each was encoded once, to see that it can be used.
#[derive(Debug)]
pub struct Preferences {
    /// Chosen pieces first.
    texts: Vec<String>,
    /// How many of them are chosen ones.
    chosen: usize,
    /// Whether each piece is longer than the context: then it is cut anew each time it is drawn.
    long: Vec<bool>,
    patchiliser: Patchiliser,
    patch_length: usize,
}

impl Preferences {
    /// Reads a preference file and its pieces. Errors name the file and the entry.
    pub fn read(path: &Path, patchiliser: Patchiliser, patch_length: usize) -> Result<Preferences> {
        let wrong = |problem: String| Error::Entry { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).at(path)?;
        let lists: Lists = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let chosen = lists.chosen.len();
        let mut preferences = Preferences { texts: Vec::new(), chosen, long: Vec::new(), patchiliser, patch_length };
        for (name, list) in [("chosen", &lists.chosen), ("rejected", &lists.rejected)] {
            if list.is_empty() {
                return Err(wrong(format!("`{name}` has no piece: there is nothing to compare")));
            }
            for (i, piece) in list.iter().enumerate() {
                let of_piece =
                    |problem: &dyn std::fmt::Display| wrong(format!("{name}[{i}], {}: {problem}", piece.display()));
                let text = std::fs::read_to_string(piece).map_err(|error| of_piece(&error))?;
                preferences.add(text).map_err(|error| of_piece(&error))?;
            }
        }
        Ok(preferences)
    }

    fn add(&mut self, text: String) -> model::Result<()> {
        let mut long = false;
        let mut first = |_| {
            long = true;
            0
        };
        let patches = self.patchiliser.encode_tagged(&text, self.patch_length, &mut first)?;
        if patches.len() < 2 {
            return Err(model::Error::Invalid("fewer than two patches: nothing to predict".to_owned()));
        }
        self.texts.push(text);
        self.long.push(long);
        Ok(())
    }

    /// How many pieces were chosen.
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// How many pieces were rejected.
    pub fn rejected(&self) -> usize {
        self.texts.len() - self.chosen
    }

    /// Every piece once, chosen ones first, long ones from their beginning.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = Result<Patches>> {
        (0..self.texts.len()).map(|piece| self.encode(piece, &mut |_| 0))
    }

    /// The pair at an index of a step, drawn uniformly from all pairs, with replacement. A long piece is cut as in the
    /// original's `encode`, at its beginning, its end or in between.
    pub(super) fn pair(&self, seed: u64, step: u64, place: usize) -> Result<[Patches; 2]> {
        let mut rng = stream(seed, Purpose::Pair, [step, place as u64]);
        let [chosen, rejected] = self.drawn(&mut rng);
        let mut pick = |n| rng.random_range(0..n);
        Ok([self.encode(chosen, &mut pick)?, self.encode(rejected, &mut pick)?])
    }

    /// As [`Preferences::pair`], for pairs with a long piece alone: nothing is encoded for the others.
    pub(super) fn pair_with_cut(&self, seed: u64, step: u64, place: usize) -> Result<Option<[Patches; 2]>> {
        let pieces = self.drawn(&mut stream(seed, Purpose::Pair, [step, place as u64]));
        if pieces.iter().any(|&piece| self.long[piece]) { self.pair(seed, step, place).map(Some) } else { Ok(None) }
    }

    fn drawn(&self, rng: &mut impl Rng) -> [usize; 2] {
        let pair = rng.random_range(0..self.chosen * self.rejected());
        [pair / self.rejected(), self.chosen + pair % self.rejected()]
    }

    fn encode(&self, piece: usize, pick: &mut dyn FnMut(usize) -> usize) -> Result<Patches> {
        Ok(self.patchiliser.encode_tagged(&self.texts[piece], self.patch_length, pick)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(chosen: &[&str], rejected: &[&str], patch_length: usize) -> (tempfile::TempDir, Result<Preferences>) {
        let folder = tempfile::tempdir().unwrap();
        let mut number = 0;
        let mut write = |texts: &[&str]| -> Vec<PathBuf> {
            let paths = texts.iter().map(|text| {
                number += 1;
                let path = folder.path().join(format!("{number}.abc"));
                std::fs::write(&path, text).unwrap();
                path
            });
            paths.collect()
        };
        let lists = serde_json::json!({ "chosen": write(chosen), "rejected": write(rejected) });
        let path = folder.path().join("preferences.json");
        std::fs::write(&path, lists.to_string()).unwrap();
        let preferences = Preferences::read(&path, Patchiliser::new(16).unwrap(), patch_length);
        (folder, preferences)
    }

    const A: &str = "K:C\n[r:0/0][V:1]A|\n";
    const B: &str = "K:C\n[r:0/0][V:1]B|\n";

    #[test]
    fn pairs_are_drawn_evenly_and_depend_on_their_place_alone() {
        let (_folder, preferences) = read(&[A, B], &["K:C\n[r:0/0][V:1]c|\n", "K:C\n[r:0/0][V:1]d|\n"], 64);
        let preferences = preferences.unwrap();
        let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
        for step in 0..4000 {
            let pair = preferences.pair(7, step, 1).unwrap();
            assert_eq!(pair, preferences.pair(7, step, 1).unwrap());
            assert!(preferences.pair_with_cut(7, step, 1).unwrap().is_none());
            *counts.entry(pair.map(|piece| piece.characters().to_vec()).concat()).or_default() += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|count| (900..1100).contains(count)), "{:?}", counts.values());
    }

    #[test]
    fn long_pieces_are_cut_anew_each_time() {
        let lines: Vec<String> = (0..40).map(|i| format!("[r:{i}/{}][V:1]ABcdefgA|\n", 39 - i)).collect();
        let (_folder, preferences) = read(&[&format!("K:C\n{}", lines.concat())], &[B], 24);
        let preferences = preferences.unwrap();
        let cuts: HashMap<Vec<u8>, usize> = (0..200).fold(HashMap::new(), |mut cuts, step| {
            let [chosen, _] = preferences.pair_with_cut(0, step, 0).unwrap().unwrap();
            assert!(chosen.len() <= 24);
            *cuts.entry(chosen.characters().to_vec()).or_default() += 1;
            cuts
        });
        assert!(cuts.len() > 10, "{}", cuts.len());
        let beginning = preferences.beginnings().next().unwrap().unwrap();
        let share = cuts[beginning.characters()] as f64 / 200.0;
        assert!((share - 1.0 / 3.0).abs() < 0.12, "{share}");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_entry() {
        let error = |chosen: &[&str], rejected: &[&str]| read(chosen, rejected, 64).1.unwrap_err().to_string();
        assert!(error(&[], &[A]).contains("preferences.json: `chosen` has no piece"));
        assert!(error(&[A], &[]).contains("preferences.json: `rejected` has no piece"));
        let text = error(&[A], &[B, "K:C\n[r:0/0][V:1]\u{e9}|\n"]);
        assert!(text.contains("preferences.json: rejected[1], ") && text.contains("line 2, column 13"), "{text}");
        assert!(error(&["K:C\n"], &[A]).contains("chosen[0], "), "no music");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Preferences::read(&path, Patchiliser::new(16).unwrap(), 64).unwrap_err().to_string()
        };
        let text = read(r#"{"chosen": ["none.abc"], "rejected": ["none.abc"]}"#);
        assert!(text.contains("p.json: chosen[0], none.abc: No such file"), "{text}");
        let text = read(r#"{"chosen": []}"#);
        assert!(text.contains("p.json: missing field `rejected`"), "{text}");
    }
}
