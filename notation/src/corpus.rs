//! Finds and reads pieces: those of an index in a key, those of a folder, those of a packed corpus.
//!
//! What the `path` of an index entry leads to decides how its pieces are stored: a file is a packed corpus; a folder with
//! folders for keys is the original's folder of augmented pieces; any other folder has interleaved pieces. Packed and
//! interleaved pieces are transposed and reduced as they are read.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::index::IndexEntry;
use crate::pack::PackedCorpus;
use crate::{Error, Key, Result, augment};

/// How the pieces of a folder are stored.
#[derive(Debug)]
enum PieceStorage {
    Augmented,
    Interleaved,
    Packed(PackedCorpus),
}

/// The pieces of an index.
#[derive(Debug)]
pub struct IndexedCorpus {
    folders: HashMap<PathBuf, PieceStorage>,
}

impl IndexedCorpus {
    /// Finds out how the pieces are stored, and opens packed corpora.
    ///
    /// # Errors
    /// A packed corpus cannot be read, or lacks a piece of the index.
    pub fn open(entries: &[IndexEntry]) -> Result<IndexedCorpus> {
        let mut folders: HashMap<PathBuf, PieceStorage> = HashMap::new();
        for entry in entries {
            let folder = entry.folder();
            if !folders.contains_key(folder) {
                folders.insert(folder.to_owned(), PieceStorage::of(folder)?);
            }
            if let Some(PieceStorage::Packed(pack)) = folders.get(folder) {
                find(pack, entry.name())?;
            }
        }
        Ok(IndexedCorpus { folders })
    }

    /// Reads a piece in a key, reduced, as NotaGen trains on it.
    ///
    /// # Errors
    /// The piece is not there, or cannot be read.
    pub fn read(&self, entry: &IndexEntry, key: Key) -> Result<String> {
        let named = |error| Error::Piece { path: self.file(entry, key), source: Box::new(error) };
        match self.form(entry) {
            PieceStorage::Augmented => text(&entry.file(key)),
            PieceStorage::Interleaved => augment::reduced(&text(&self.file(entry, key))?, key).map_err(named),
            PieceStorage::Packed(pack) => augment::reduced(&pack.text(find(pack, entry.name())?)?, key).map_err(named),
        }
    }

    /// The bytes of the text that a piece is read from. It says how long a piece is compared with others of its folder.
    ///
    /// # Errors
    /// The piece is not there.
    pub fn size(&self, entry: &IndexEntry, key: Key) -> Result<u64> {
        if let PieceStorage::Packed(pack) = self.form(entry) {
            return Ok(pack.size(find(pack, entry.name())?));
        }
        let path = self.file(entry, key);
        Ok(fs::metadata(&path).map_err(Error::io(&path))?.len())
    }

    /// The file that a piece is read from; for a packed piece, the file it would have.
    pub fn file(&self, entry: &IndexEntry, key: Key) -> PathBuf {
        match self.form(entry) {
            PieceStorage::Augmented => entry.file(key),
            PieceStorage::Interleaved | PieceStorage::Packed(_) => entry.folder().join(format!("{}.abc", entry.name())),
        }
    }

    fn form(&self, entry: &IndexEntry) -> &PieceStorage {
        self.folders.get(entry.folder()).unwrap_or(&PieceStorage::Augmented)
    }
}

impl PieceStorage {
    fn of(folder: &Path) -> Result<PieceStorage> {
        if folder.is_file() {
            return PackedCorpus::open(folder).map(PieceStorage::Packed);
        }
        let augmented = Key::ALL.iter().any(|key| folder.join(key.name()).is_dir());
        // If there is no folder, errors name the file of the original's layout.
        Ok(if augmented || !folder.is_dir() { PieceStorage::Augmented } else { PieceStorage::Interleaved })
    }
}

fn find(pack: &PackedCorpus, name: &str) -> Result<usize> {
    let missing = || Error::Pack { path: pack.path().to_owned(), problem: format!("no piece called {name} in it") };
    pack.find(name).ok_or_else(missing)
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io(path))
}

/// One piece and where to read it.
#[derive(Clone, Debug)]
pub enum PieceSource {
    /// In a file of its own.
    File(PathBuf),
    /// In a packed corpus, with its index in the order of the names.
    Packed(Arc<PackedCorpus>, usize),
    /// In an index, with the key to read it in.
    Listed(Arc<IndexedCorpus>, IndexEntry, Key),
}

impl PieceSource {
    /// Its file; for a packed piece `<pack>/<name>.abc`.
    pub fn path(&self) -> PathBuf {
        match self {
            PieceSource::File(path) => path.clone(),
            PieceSource::Packed(pack, index) => pack.path().join(format!("{}.abc", pack.name(*index))),
            PieceSource::Listed(corpus, entry, key) => corpus.file(entry, *key),
        }
    }

    /// Its bytes, not decoded.
    ///
    /// # Errors
    /// The piece is not there, or cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            PieceSource::File(path) => fs::read(path).map_err(Error::io(path)),
            PieceSource::Packed(pack, index) => pack.text(*index).map(String::into_bytes),
            PieceSource::Listed(corpus, entry, key) => corpus.read(entry, *key).map(String::into_bytes),
        }
    }
}

/// Lists the pieces of a folder and its subfolders whose extension is one of `ends`, or all pieces of a packed corpus,
/// sorted by name.
///
/// # Errors
/// The folder or the packed corpus cannot be read.
pub fn list(path: &Path, ends: &[&str]) -> Result<Vec<PieceSource>> {
    if path.is_file() {
        let pack = Arc::new(PackedCorpus::open(path)?);
        return Ok((0..pack.len()).map(|index| PieceSource::Packed(Arc::clone(&pack), index)).collect());
    }
    let mut found = Vec::new();
    walk(path, ends, &mut found)?;
    found.sort();
    Ok(found.into_iter().map(PieceSource::File).collect())
}

fn walk(folder: &Path, ends: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            walk(&path, ends, found)?;
        } else if path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted)) {
            found.push(path);
        }
    }
    Ok(())
}
