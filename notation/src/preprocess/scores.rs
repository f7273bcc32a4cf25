//! The files of a folder of scores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What a score's file name ends in.
const ENDS: [&str; 4] = ["abc", "mxl", "musicxml", "xml"];

/// Where the score of a name is in a folder.
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    ENDS.iter().map(|end| folder.join(format!("{name}.{end}"))).find(|path| path.is_file())
}

/// A score's file name without its end.
pub(super) fn score_name(file: &str) -> &str {
    file.rsplit_once('.').filter(|(_, end)| ENDS.contains(end)).map_or(file, |(name, _)| name)
}

/// The names of the pieces with their files, sorted.
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
