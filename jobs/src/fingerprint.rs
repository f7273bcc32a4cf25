//! What a stage depends on, in a form that can be compared: its settings, its inputs, the stages before it.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::atomic;

/// Folders up to this many bytes are told apart by their contents, larger ones by names, sizes and times.
const READ_FOLDERS_UP_TO: u64 = 256 << 20;

/// What a stage depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The settings that decide the result.
    pub settings: BTreeMap<String, Value>,
    /// A digest for each input, by key and path.
    pub inputs: BTreeMap<String, String>,
    /// The fingerprints of the stages whose results it reads.
    pub stages: BTreeMap<String, String>,
    /// SHA-256 of all of these.
    pub digest: String,
}

impl Fingerprint {
    pub fn new(
        settings: BTreeMap<String, Value>,
        inputs: BTreeMap<String, String>,
        stages: BTreeMap<String, String>,
    ) -> Fingerprint {
        let mut hash = Sha256::new();
        for (key, value) in &settings {
            hash.update(format!("setting {key} {value}\n"));
        }
        for (key, value) in &inputs {
            hash.update(format!("input {key} {value}\n"));
        }
        for (key, value) in &stages {
            hash.update(format!("stage {key} {value}\n"));
        }
        let digest = hex(hash);
        Fingerprint { settings, inputs, stages, digest }
    }

    /// Why this differs from what a stage was run with, in words.
    pub fn changes_since(&self, before: &Fingerprint) -> Vec<String> {
        let mut reasons = Vec::new();
        let none = Value::Null;
        for key in union(&self.settings, &before.settings) {
            let (was, is) = (before.settings.get(key).unwrap_or(&none), self.settings.get(key).unwrap_or(&none));
            if was != is {
                let [was, is] =
                    [was, is].map(|value| if value.is_null() { "unset".to_owned() } else { value.to_string() });
                reasons.push(format!("{key} {was} → {is}"));
            }
        }
        for key in union(&self.inputs, &before.inputs) {
            match (before.inputs.get(key), self.inputs.get(key)) {
                (was, is) if was == is => {}
                (_, Some(is)) if is == MISSING => reasons.push(format!("{key} is missing")),
                _ => reasons.push(format!("{key} changed")),
            }
        }
        for key in union(&self.stages, &before.stages) {
            if self.stages.get(key) != before.stages.get(key) {
                reasons.push(format!("stage {key} changed"));
            }
        }
        reasons
    }
}

fn union<'a, V>(one: &'a BTreeMap<String, V>, other: &'a BTreeMap<String, V>) -> Vec<&'a String> {
    let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// The digest of an input that is not there.
pub const MISSING: &str = "missing";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    size: u64,
    modified: u128,
    digest: String,
}

/// Digests of inputs. Those of large files are remembered by size and time of change.
#[derive(Debug, Default)]
pub struct Digests {
    memory: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    changed: bool,
}

impl Digests {
    /// Remembers in the file `memory`; what cannot be read there is forgotten.
    pub fn open(memory: &Path) -> Digests {
        let known = fs::read(memory).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Digests { memory: Some(memory.to_owned()), known, changed: false }
    }

    /// Writes the memory if its folder is there.
    pub fn save(&mut self) {
        if let Some(memory) = &self.memory
            && self.changed
            && memory.parent().is_some_and(Path::is_dir)
            && let Ok(bytes) = serde_json::to_vec(&self.known)
            && atomic::write(memory, &bytes).is_ok()
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
            Ok(metadata) if metadata.is_dir() => folder(path),
            Ok(metadata) => self.file(path, &metadata),
        }
    }

    fn file(&mut self, path: &Path, metadata: &fs::Metadata) -> io::Result<String> {
        let modified = modified(metadata);
        if let Some(known) = self.known.get(path)
            && known.size == metadata.len()
            && known.modified == modified
        {
            return Ok(known.digest.clone());
        }
        let digest = of_file(path)?;
        self.known.insert(path.to_owned(), Known { size: metadata.len(), modified, digest: digest.clone() });
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

fn folder(path: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    list(path, &mut files)?;
    files.sort_by(|a, b| a.0.cmp(&b.0));
    let read = files.iter().map(|(_, metadata)| metadata.len()).sum::<u64>() <= READ_FOLDERS_UP_TO;
    let mut hash = Sha256::new();
    for (file, metadata) in &files {
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

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
