//! Files of a training, and a thread that writes them.
use crate::error::At;
use crate::{Error, Result};
use notation::files::{Flush, write_atomically};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Writes a file whole and on the disk, or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, Flush::Now, |file| file.write_all(bytes)).at(path)
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
