//! Digests of files and folders, remembered.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::common::files;

/// Folders up to this many bytes are told apart by their contents, larger ones by names, sizes and times.
const READ_FOLDERS_UP_TO: u64 = 256 << 20;

/// The digest of an input that is not there.
pub const MISSING: &str = "missing";

/// The digest of a file, or of the files of a folder, when their sizes and times were these.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    size: u64,
    modified: u128,
    digest: String,
}

/// Digests of inputs, remembered by size and time of change.
#[derive(Debug, Default)]
pub struct Digests {
    memory: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    changed: bool,
}

impl Digests {
    /// Remembers in `digests.json` in the folder of a run; what cannot be read there is forgotten.
    pub fn open(run: &Path) -> Digests {
        let memory = run.join("digests.json");
        let known = fs::read(&memory).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Digests { memory: Some(memory), known, changed: false }
    }

    /// Writes the memory if its folder is there.
    pub fn save(&mut self) {
        if let Some(memory) = &self.memory
            && self.changed
            && memory.parent().is_some_and(Path::is_dir)
            && let Ok(bytes) = serde_json::to_vec(&self.known)
            && files::save(memory, bytes).is_ok()
        {
            self.changed = false;
        }
    }

    /// A digest of a file or a folder.
    ///
    /// # Errors
    /// The input is there and cannot be read.
    pub fn of(&mut self, path: &Path) -> io::Result<String> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(MISSING.to_owned()),
            Err(error) => Err(error),
            Ok(metadata) if metadata.is_dir() => self.folder(path),
            Ok(metadata) => self.remembered(path, metadata.len(), modified(&metadata), || of_file(path)),
        }
    }

    fn folder(&mut self, path: &Path) -> io::Result<String> {
        let mut files = Vec::new();
        list(path, &mut files)?;
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let size = files.iter().map(|(_, metadata)| metadata.len()).sum();
        let mut hash = Sha256::new();
        for (file, metadata) in &files {
            hash.update(format!("{} {} {}\n", file.display(), metadata.len(), modified(metadata)));
        }
        let times = hash.finalize().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
        self.remembered(path, size, times, || of_files(path, &files, size <= READ_FOLDERS_UP_TO))
    }

    /// The digest that was taken when size and time were the same, or else a new one.
    fn remembered(
        &mut self,
        path: &Path,
        size: u64,
        modified: u128,
        take: impl FnOnce() -> io::Result<String>,
    ) -> io::Result<String> {
        if let Some(known) = self.known.get(path).filter(|known| (known.size, known.modified) == (size, modified)) {
            return Ok(known.digest.clone());
        }
        let digest = take()?;
        self.known.insert(path.to_owned(), Known { size, modified, digest: digest.clone() });
        self.changed = true;
        Ok(digest)
    }
}

/// The SHA-256 of a file's contents.
pub fn of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    content(path, &mut hash)?;
    Ok(hex(hash))
}

fn of_files(path: &Path, files: &[(PathBuf, fs::Metadata)], read: bool) -> io::Result<String> {
    let mut hash = Sha256::new();
    for (file, metadata) in files {
        let name = file.strip_prefix(path).unwrap_or(file);
        hash.update(format!("{} {}\n", name.display(), metadata.len()));
        if read {
            content(file, &mut hash)?;
        } else {
            hash.update(modified(metadata).to_le_bytes());
        }
    }
    Ok(hex(hash))
}

fn list(folder: &Path, files: &mut Vec<(PathBuf, fs::Metadata)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() { list(&path, files)? } else { files.push((path, metadata)) }
    }
    Ok(())
}

fn content(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn modified(metadata: &fs::Metadata) -> u128 {
    metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos())
}

pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_again_when_a_file_has_another_time() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a/b");
        fs::create_dir(place.path().join("a")).unwrap();
        let write = |text: &str, seconds: u64| {
            fs::write(&file, text).unwrap();
            let time = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let mut digests = Digests::default();
        write("one", 1);
        let one = digests.of(place.path()).unwrap();
        write("two", 1);
        assert_eq!(digests.of(place.path()).unwrap(), one);
        write("two", 2);
        assert_ne!(digests.of(place.path()).unwrap(), one);
        // What is remembered is what is in it, not when it was written.
        write("one", 3);
        assert_eq!(digests.of(place.path()).unwrap(), one);
        assert_eq!(Digests::default().of(place.path()).unwrap(), one);
    }
}
