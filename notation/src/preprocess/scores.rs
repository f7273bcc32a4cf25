//! The files of a folder of scores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The extensions of scores.
const EXTENSIONS: [&str; 4] = ["abc", "mxl", "musicxml", "xml"];

/// The file of the score with this name in a folder.
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    EXTENSIONS.iter().map(|end| folder.join(format!("{name}.{end}"))).find(|path| path.is_file())
}

/// A file name without its extension, if that is one of a score.
pub(super) fn score_name(file: &str) -> &str {
    file.rsplit_once('.').filter(|(_, end)| EXTENSIONS.contains(end)).map_or(file, |(name, _)| name)
}

/// The names and files of the scores in a folder.
pub(super) fn scores(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut scores: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let file = path.file_name().unwrap_or_default();
        let file = file.to_str().ok_or_else(|| Error::Name { path: path.clone() })?;
        let name = score_name(file);
        if name != file
            && !name.is_empty()
            && !name.starts_with('.')
            && path.is_file()
            && let Some(other) = scores.insert(name.to_owned(), path.clone())
        {
            let (path, other) = if other < path { (other, path) } else { (path, other) };
            return Err(Error::SameName { path, other });
        }
    }
    if scores.is_empty() {
        return Err(Error::NoScores { path: folder.to_owned() });
    }
    Ok(scores)
}
