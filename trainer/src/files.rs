//! Files that are whole or not there, and a thread that writes them.
use crate::error::At;
use crate::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

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

/// Writes in the background, one file after the other.
#[derive(Default)]
pub(crate) struct BackgroundWriter {
    running: Option<JoinHandle<Result<()>>>,
}

impl BackgroundWriter {
    /// Begins to write, behind what is being written. A failure of that is a failure of this.
    pub(crate) fn begin(&mut self, write: impl FnOnce() -> Result<()> + Send + 'static) {
        let before = self.running.take();
        self.running = Some(std::thread::spawn(move || {
            before.map_or(Ok(()), join)?;
            write()
        }));
    }

    /// Waits until all is written.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), join)
    }
}

impl Drop for BackgroundWriter {
    fn drop(&mut self) {
        // What was begun is finished even when the training ends with an error, which says more than this one would.
        let _ = self.finish();
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::Internal("the thread that writes checkpoints has died".to_owned())))
}
