//! One runner a run.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::failure::{Failure, Result};

/// Held by the runner of a run; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// How long shares of a stage wait for each other's lock, and a job of a cluster for that of the job before it.
    pub const SHARES: Duration = Duration::from_secs(120);

    /// The lock of a run.
    ///
    /// # Errors
    /// Another process holds it, and goes on doing so: the message names process and host.
    pub fn take(folder: &Path, patience: Duration) -> Result<Lock> {
        Lock::at(&folder.join("lock"), patience)
    }

    /// The lock that is this file.
    ///
    /// # Errors
    /// As of `take`.
    pub fn at(path: &Path, patience: Duration) -> Result<Lock> {
        let folder = path.parent().unwrap_or(path);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(|error| Failure::io("open", path, error))?;
        let mut taken = file.try_lock();
        // `holder` holds it for an instant.
        let until = Instant::now() + patience.max(Duration::from_millis(250));
        while matches!(taken, Err(TryLockError::WouldBlock)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
            taken = file.try_lock();
        }
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
                return Err(Failure::failed(format!("{} is being run by {holder}", folder.display()))
                    .hint("wait for it or stop it; `notagen-train status` shows how far it is"));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::io("lock", path, error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {} on {}", std::process::id(), host()));
        written.map_err(|error| Failure::io("write", path, error))?;
        Ok(Lock { _file: file })
    }

    /// Who runs this run now, if anybody does.
    pub fn holder(folder: &Path) -> Option<String> {
        let mut file = OpenOptions::new().read(true).write(true).open(folder.join("lock")).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).ok()?;
                Some(text.trim().to_owned())
            }
            _ => None,
        }
    }
}

/// The name of this machine.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "this machine".to_owned())
}
