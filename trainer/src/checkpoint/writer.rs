//! A thread that writes.
use crate::{Error, Result};
use std::thread::JoinHandle;

/// Writes in the background, one file after the other.
#[derive(Default)]
pub(super) struct Writer {
    running: Option<JoinHandle<Result<()>>>,
}

impl Writer {
    /// Begins to write, behind what is being written. A failure of that is a failure of this.
    pub(super) fn begin(&mut self, write: impl FnOnce() -> Result<()> + Send + 'static) {
        let before = self.running.take();
        self.running = Some(std::thread::spawn(move || {
            before.map_or(Ok(()), join)?;
            write()
        }));
    }

    /// Waits until all is written.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), join)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What was begun is finished even when the training ends with an error, which says more than this one would.
        let _ = self.finish();
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::Internal("the thread that writes checkpoints has died".to_owned())))
}
