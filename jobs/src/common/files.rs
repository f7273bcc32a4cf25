//! Files that are whole or not there, and failures that name them.
use std::io::Write;
use std::path::Path;
use std::{fs, io};

use notation::files::{Flush, folder, write_atomically};
pub use notation::files::{link, point};
use serde::Serialize;

use crate::common::failure::{Failure, Result};

/// Writes a file in a folder that is made if it is not there.
pub fn save(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    make_folder(folder(path))?;
    write_atomically(path, Flush::Now, |file| file.write_all(bytes.as_ref()))
        .map_err(|error: io::Error| Failure::io("write", path, error))
}

/// The same, as JSON for people.
pub fn save_json(path: &Path, value: &impl Serialize) -> Result<()> {
    save(path, serde_json::to_vec_pretty(value).map_err(|error| Failure::io("write", path, error))?)
}

/// Makes a folder, and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Failure::io("make", path, error))
}

/// Removes a file that may not be there.
pub fn remove(path: &Path) -> Result<()> {
    gone(path, fs::remove_file(path))
}

/// Removes a folder that may not be there, with all that is in it.
pub fn remove_folder(path: &Path) -> Result<()> {
    gone(path, fs::remove_dir_all(path))
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io("remove", path, error)),
        _ => Ok(()),
    }
}
