//! Files that are whole or not there.
use crate::Result;
use crate::error::At;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes a file under a temporary name beside it, and renames it when it is whole and on the disk.
pub(crate) fn write_atomically(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    remove(&part)?;
    make(&part).at(path)?;
    fs::File::open(&part).and_then(|file| file.sync_all()).at(&part)?;
    fs::rename(&part, path).at(path)?;
    // Renaming one name of a file to another of it does nothing, and says that it did.
    remove(&part)
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if path.exists() { fs::remove_file(path).at(path) } else { Ok(()) }
}

/// The files of a folder whose names are wanted, in the order of their names.
pub(crate) fn list(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        if wanted(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
