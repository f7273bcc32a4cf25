//! What to preprocess, and where to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::index::file_name;
use crate::{Error, Key, Result};

/// The keys that pieces are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Each piece's own: enough for key_augmentation none.
    #[default]
    Original,
    /// All fifteen.
    All,
    /// None: training moves the packed or interleaved pieces as it reads them.
    None,
}

impl Keys {
    pub(super) fn of(self, original: Key) -> Vec<Key> {
        match self {
            Keys::Original => vec![original],
            Keys::All => Key::ALL.to_vec(),
            Keys::None => Vec::new(),
        }
    }
}

/// What to preprocess, and where to.
#[derive(Clone, Debug)]
pub struct PreprocessOptions {
    /// The folder of scores: `<name>.abc` (standard ABC), `.mxl`, `.musicxml` or `.xml`. Subfolders and other files are
    /// ignored.
    pub scores: PathBuf,
    /// The folder for interleaved ABC.
    pub interleaved: Option<PathBuf>,
    /// The packed corpus for interleaved ABC. Pieces with the same text are stored once, and only the first is in the index.
    pub pack: Option<PathBuf>,
    /// The folder for reduced ABC, with a folder for each key. The index files are named after it.
    pub augmented: PathBuf,
    /// The share of pieces for evaluation, 0 to 1, rounded down to whole pieces.
    pub eval_split: f64,
    /// The seed of the split and of the order in the index files.
    pub seed: u64,
    /// The keys to write. The index names the augmented pieces; with [`Keys::None`] the packed or else the interleaved ones.
    pub keys: Keys,
    /// A CSV table with the prompts of the pieces: the columns `piece`, `period`, `composer` and `instrumentation`.
    pub prompts: Option<PathBuf>,
    /// Worker threads; all cores if `None`.
    pub threads: Option<usize>,
    /// Stops the run before the next piece once it is set, with [`Error::Stopped`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl PreprocessOptions {
    /// The original's options: a tenth of the pieces for evaluation, seed 0, only the original key.
    pub fn new(
        scores: impl Into<PathBuf>,
        interleaved: impl Into<PathBuf>,
        augmented: impl Into<PathBuf>,
    ) -> PreprocessOptions {
        PreprocessOptions {
            scores: scores.into(),
            interleaved: Some(interleaved.into()),
            pack: None,
            augmented: augmented.into(),
            eval_split: 0.1,
            seed: 0,
            keys: Keys::default(),
            prompts: None,
            threads: None,
            stop: None,
        }
    }

    /// The path of an index file, beside the folder of augmented pieces. `suffix` is `""`, `"_train"`, `"_eval"` or
    /// `"_report"`.
    pub fn index(&self, suffix: &str) -> PathBuf {
        // By components, since after a slash at the end the suffix would name a hidden file in the folder.
        let mut path = self.augmented.components().as_path().as_os_str().to_owned();
        path.push(suffix);
        path.push(".jsonl");
        path.into()
    }

    /// The folder or packed corpus whose pieces the index names.
    pub(super) fn listed(&self) -> Result<&Path> {
        match (self.keys, &self.pack, &self.interleaved) {
            (_, None, None) => Err(Error::NoOutput),
            (Keys::None, Some(pack), _) => Ok(pack),
            (Keys::None, None, Some(interleaved)) => Ok(interleaved),
            _ => Ok(&self.augmented),
        }
    }

    /// The files of a piece.
    pub(super) fn files(&self, name: &str, keys: &[Key]) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            self.interleaved.iter().map(|folder| folder.join(format!("{name}.abc"))).collect();
        files.extend(keys.iter().map(|key| self.augmented.join(key.name()).join(file_name(name, *key))));
        files
    }
}
