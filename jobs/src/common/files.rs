//! Files that are whole or not there, and failures that name them.
use std::io::Write;
use std::path::Path;
use std::{fs, io};

use notation::files::{Flush, folder, write_atomically};
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

/// Makes `to` the same file as `from`: a hard link where the file system allows it, else a copy.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    replace(to, |name| {
        if fs::hard_link(from, name).is_err() {
            fs::copy(from, name)?;
            fs::File::open(name)?.sync_all()?;
        }
        Ok(())
    })
}

/// Makes `path` a symbolic link to `target`, in place of what it was.
pub fn point(target: &Path, path: &Path) -> io::Result<()> {
    replace(path, |name| std::os::unix::fs::symlink(target, name))
}

/// Makes a file under another name in the same folder, then renames it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    let scratch = tempfile::Builder::new().prefix(".linking").tempdir_in(folder)?;
    let name = scratch.path().join("file");
    make(&name)?;
    // Renaming one link of a file onto another of the same file does nothing, and reports success.
    fs::rename(&name, path)
}
