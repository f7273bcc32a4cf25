//! Index files. They have one line of JSON for each piece: `{"path": "data/augmented/piece", "key": "Gmin"}`.
//!
//! The file of a piece in a key is `<folder of path>/<Key>/<name of path>_<Key>.abc`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Key, Result};

/// A piece in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The folder of augmented pieces, and the piece's name.
    pub path: String,
    /// The original key as in the header, such as `Gmin`. See [`Key::of_mode`].
    pub key: String,
}

impl IndexEntry {
    /// The piece's name: the part of the path after the last `/`. It may contain dots.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The piece's file in a key.
    pub fn file(&self, key: Key) -> PathBuf {
        self.folder().join(key.name()).join(file_name(self.name(), key))
    }

    /// The part of the path before the name.
    pub fn folder(&self) -> &Path {
        let folder = &self.path[..self.path.len() - self.name().len()];
        Path::new(folder.strip_suffix('/').filter(|folder| !folder.is_empty()).unwrap_or(folder))
    }

    /// The signature of the original key.
    ///
    /// # Errors
    /// [`Error::UnknownKey`].
    pub fn key(&self) -> Result<Key> {
        Key::of_mode(&self.key)
    }

    /// The line of the index, as Python's `json.dumps` writes it.
    pub fn line(&self) -> String {
        format!("{{\"path\": {}, \"key\": {}}}\n", python_string(&self.path), python_string(&self.key))
    }
}

/// `<name>_<Key>.abc`.
pub(crate) fn file_name(name: &str, key: Key) -> String {
    format!("{name}_{}.abc", key.name())
}

/// Reads an index file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Index`] names the line.
pub fn read(path: &Path) -> Result<Vec<IndexEntry>> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|error| Error::Index {
                path: path.to_owned(),
                line: i + 1,
                problem: error.to_string(),
            })
        })
        .collect()
}

/// A JSON string as Python's `json.dumps` writes it, in ASCII.
fn python_string(text: &str) -> String {
    let mut result = String::from('"');
    for c in text.chars() {
        match c {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            '\u{8}' => result.push_str("\\b"),
            '\u{c}' => result.push_str("\\f"),
            ' '..='~' => result.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    result.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    result.push('"');
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_pythons() {
        let entry = IndexEntry { path: "data/a/Lä\"nd\u{7f}𝄞.2".into(), key: "F#min".into() };
        assert_eq!(entry.line(), "{\"path\": \"data/a/L\\u00e4\\\"nd\\u007f\\ud834\\udd1e.2\", \"key\": \"F#min\"}\n");
        assert_eq!(serde_json::from_str::<IndexEntry>(&entry.line()).unwrap(), entry);
    }

    #[test]
    fn names_may_have_dots() {
        let entry = IndexEntry { path: "data/augmented/bach_bwv66.6".into(), key: "F#min".into() };
        assert_eq!(entry.name(), "bach_bwv66.6");
        assert_eq!(entry.file(entry.key().unwrap()), Path::new("data/augmented/A/bach_bwv66.6_A.abc"));
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, "{\"path\": \"a\", \"key\": \"C\"}\n\n{\"path\": 1}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("a.jsonl: line 3: "));
    }
}
