//! Writes and removes files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Writes a file whole or not at all: beside it first, then renamed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(Error::io(path))
}

/// Removes files; those that are not there are no error.
pub(crate) fn remove(files: &[PathBuf]) -> Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(file)(error)),
            _ => {}
        }
    }
    Ok(())
}
