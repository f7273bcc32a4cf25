//! What to preprocess, and where to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::index::file_name;
use crate::{Error, Key, Result};

/// Which keys to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Each piece's own.
    #[default]
    Original,
    /// All fifteen.
    All,
    /// None: pieces are moved to a key as they are read, see [`crate::corpus`]. All fifteen have to be possible.
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
    /// Folder of scores: `<name>.abc` (standard ABC), `.mxl`, `.musicxml` or `.xml`; its subfolders and other
    /// files are left alone.
    pub scores: PathBuf,
    /// Folder for interleaved ABC.
    pub interleaved: Option<PathBuf>,
    /// File for interleaved ABC, all pieces in it. Those with the text of another one are stored once, and are in no
    /// index.
    pub pack: Option<PathBuf>,
    /// Folder for reduced ABC by key; the index files are named after it.
    pub augmented: PathBuf,
    /// The share of pieces for evaluation, 0 to 1; rounded down to whole pieces.
    pub eval_split: f64,
    /// Of the split and the order of the index files.
    pub seed: u64,
    /// Which keys to write. The index names the augmented pieces, or with [`Keys::None`] the packed ones, or the
    /// interleaved ones.
    pub keys: Keys,
    /// A table of the pieces' prompts, see [`crate::prompts`].
    pub prompts: Option<PathBuf>,
    /// Worker threads; all cores if `None`.
    pub threads: Option<usize>,
    /// Set to stop between two pieces, with [`Error::Stopped`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl PreprocessOptions {
    /// The original's: a tenth for evaluation; seed 0; the original key alone.
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

    /// An index file beside the folder of augmented pieces: `""`, `"_train"`, `"_eval"` or `"_report"`.
    pub fn index(&self, suffix: &str) -> PathBuf {
        // Components, so that a slash at the end does not make a hidden file in the folder.
        let mut path = self.augmented.components().as_path().as_os_str().to_owned();
        path.push(suffix);
        path.push(".jsonl");
        path.into()
    }

    /// The folder, or the packed corpus, whose pieces the index names.
    pub(super) fn listed(&self) -> Result<&Path> {
        match (self.keys, &self.pack, &self.interleaved) {
            (_, None, None) => Err(Error::NoOutput),
            (Keys::None, Some(pack), _) => Ok(pack),
            (Keys::None, None, Some(interleaved)) => Ok(interleaved),
            _ => Ok(&self.augmented),
        }
    }

    /// Where a piece's files go.
    pub(super) fn files(&self, name: &str, keys: &[Key]) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            self.interleaved.iter().map(|folder| folder.join(format!("{name}.abc"))).collect();
        files.extend(keys.iter().map(|key| self.augmented.join(key.name()).join(file_name(name, *key))));
        files
    }
}
