//! Files of the Hugging Face hub: asked for, carried over, checked, and kept where the hub's own tools keep theirs.
mod client;
pub mod reference;
mod refusal;
pub mod released;

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use hf_hub::{Cache, CacheRepo};

use crate::common::failure::{Failure, Result};
use crate::common::progress::{Reporter, bytes};
use crate::common::{digests, files};
use client::{Client, Metadata, Trouble};
use reference::{Reference, is_commit};

/// Tries that may fail one after the other without a byte having come.
const TRIES: u32 = 6;
/// The wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// A longer wait is left to people.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
const TIMEOUT: u64 = 10;

/// The hub, as the environment describes it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    cache: Cache,
    offline: bool,
}

/// A file that is here now.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// In the cache.
    pub path: PathBuf,
    /// Whether it was carried over, and not found here.
    pub carried: bool,
}

impl Hub {
    /// With the variables of the hub's own tools.
    ///
    /// # Errors
    /// There is no home for the cache.
    pub fn from_env() -> Result<Hub> {
        let of = |names: &[&str]| names.iter().find_map(|name| env::var(name).ok().filter(|text| !text.is_empty()));
        let home = || -> Option<PathBuf> {
            let shared = of(&["XDG_CACHE_HOME"]).map(PathBuf::from);
            Some(shared.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("huggingface"))
        };
        let home = of(&["HF_HOME"]).map(PathBuf::from).or_else(home);
        let home = home.ok_or_else(|| Failure::failed("no folder for the hub's cache").hint("set HF_HOME to one"))?;
        let cache = of(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), PathBuf::from);
        let token_file = of(&["HF_TOKEN_PATH"]).map_or_else(|| home.join("token"), PathBuf::from);
        let token = of(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| fs::read_to_string(token_file).ok());
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let endpoint = of(&["HF_ENDPOINT"]).unwrap_or_else(|| "https://huggingface.co".to_owned());
        let seconds = of(&["HF_HUB_DOWNLOAD_TIMEOUT"]).and_then(|text| text.parse().ok()).unwrap_or(TIMEOUT);
        let offline = of(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
            .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        // A link to a file in the cache has to hold from any folder.
        let cache = std::path::absolute(&cache).map_err(|error| Failure::io("find", &cache, error))?;
        Ok(Hub {
            client: Client::new(&endpoint, token, Duration::from_secs(seconds.max(1))),
            cache: Cache::new(cache),
            offline,
        })
    }

    /// Has a file under `checkpoints/`, a link to where it lies in the cache. A file put there by hand stays.
    ///
    /// # Errors
    /// One line that says what the hub, the network or this machine does not give.
    pub fn provide(&self, file: &Reference, reporter: &mut Reporter, stop: &AtomicBool) -> Result<Option<Fetched>> {
        let to = file.path();
        if file.is_here() {
            return Ok(None);
        }
        let fetched = self.fetch(file, reporter, stop)?;
        files::point(&fetched.path, &to).map_err(|error| Failure::io("make", &to, error))?;
        Ok(Some(fetched))
    }

    /// Has a file in the cache.
    fn fetch(&self, file: &Reference, reporter: &mut Reporter, stop: &AtomicBool) -> Result<Fetched> {
        let cached = self.cached(file).map(|path| Fetched { path, carried: false });
        if let (Some(fetched), true) = (&cached, self.offline || is_commit(&file.revision)) {
            return Ok(fetched.clone());
        }
        if self.offline {
            return Err(refusal::not_cached(&self.cache, file));
        }
        let metadata = match (self.metadata(file, reporter, stop)?, cached) {
            (Ok(metadata), _) => metadata,
            (Err(trouble), Some(fetched)) if trouble.may_pass() => {
                let why = self.refused(file, &trouble);
                reporter.warn(format!("{why}; what is in the cache is taken as it is"));
                return Ok(fetched);
            }
            (Err(trouble), _) => return Err(self.refused(file, &trouble)),
        };
        let repo = self.cache.repo(file.repo());
        let path = repo.pointer_path(&metadata.commit).join(&file.file);
        let carried = !path.exists() && self.carry(file, &metadata, reporter, stop)?;
        self.point(file, &metadata, &path).map_err(|error| Failure::io("write", &path, error))?;
        if !is_commit(&file.revision) {
            repo.create_ref(&metadata.commit).map_err(|error| Failure::io("write", &self.folder(file), error))?;
        }
        Ok(Fetched { path, carried })
    }

    /// The file in the cache as it was when it was last asked for.
    fn cached(&self, file: &Reference) -> Option<PathBuf> {
        let repo: CacheRepo = self.cache.repo(file.repo());
        if is_commit(&file.revision) {
            return Some(repo.pointer_path(&file.revision).join(&file.file)).filter(|path| path.exists());
        }
        repo.get(&file.file)
    }

    /// A repository's folder in the cache.
    fn folder(&self, file: &Reference) -> PathBuf {
        self.cache.path().join(file.repo().folder_name())
    }

    /// The snapshot's name for a blob: a relative link, as the hub's tools make it.
    fn point(&self, file: &Reference, metadata: &Metadata, path: &Path) -> std::io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        let up = "../".repeat(2 + file.file.matches('/').count());
        let blob = self.folder(file).join("blobs").join(&metadata.etag);
        files::point(Path::new(&format!("{up}blobs/{}", metadata.etag)), path).or_else(|_| files::link(&blob, path))
    }

    /// Asks about a file, again where it is worth it.
    fn metadata(
        &self,
        file: &Reference,
        reporter: &mut Reporter,
        stop: &AtomicBool,
    ) -> Result<std::result::Result<Metadata, Trouble>> {
        let mut failures = 0;
        loop {
            match self.client.metadata(file) {
                // What does not answer at all is not there: nothing is lost by asking for it later.
                Err(trouble @ Trouble::Status { .. }) if trouble.may_pass() => {
                    failures += 1;
                    if !self.wait(file, &trouble, failures, reporter, stop)? {
                        return Ok(Err(trouble));
                    }
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Waits before the next try; whether there is to be one.
    fn wait(
        &self,
        file: &Reference,
        trouble: &Trouble,
        failures: u32,
        reporter: &mut Reporter,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let asked = match trouble {
            Trouble::Status { after, .. } => *after,
            _ => None,
        };
        let wait = asked.unwrap_or(FIRST_WAIT * 2_u32.saturating_pow(failures - 1));
        if failures >= TRIES || wait > LONGEST_WAIT {
            return Ok(false);
        }
        reporter.say(format!("{}: again in {:.1} s", self.refused(file, trouble), wait.as_secs_f64()));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            check_stop(file, stop)?;
            thread::sleep(Duration::from_millis(100).min(wait));
        }
        Ok(true)
    }

    /// Carries a file over into the cache, unless its contents are there already; one process at a time.
    fn carry(&self, file: &Reference, metadata: &Metadata, reporter: &mut Reporter, stop: &AtomicBool) -> Result<bool> {
        let blobs = self.folder(file).join("blobs");
        let locks = self.cache.path().join(".locks").join(file.repo().folder_name());
        for folder in [&blobs, &locks] {
            files::make_folder(folder)?;
        }
        let path = locks.join(format!("{}.lock", metadata.etag));
        let lock = File::create(&path).map_err(|error| Failure::io("open", &path, error))?;
        let mut said = false;
        while matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            if !std::mem::replace(&mut said, true) {
                reporter.say(format!("{file}: another process fetches it; waiting"));
            }
            check_stop(file, stop)?;
            thread::sleep(Duration::from_millis(200));
        }
        let blob = blobs.join(&metadata.etag);
        if blob.exists() {
            return Ok(false);
        }
        let part = blobs.join(format!("{}.incomplete", metadata.etag));
        let left = part.metadata().map_or(0, |found| found.len());
        self.transfer(file, metadata, &part, reporter, stop)?;
        if let Err(failure) = check(file, metadata, &part) {
            if left == 0 {
                return Err(failure);
            }
            reporter.say(format!("{failure}: once more, from the beginning"));
            self.transfer(file, metadata, &part, reporter, stop)?;
            check(file, metadata, &part)?;
        }
        fs::rename(&part, &blob).map_err(|error| Failure::io("write", &blob, error))?;
        Ok(true)
    }

    /// Carries the contents over, from where an earlier try broke off.
    fn transfer(
        &self,
        file: &Reference,
        metadata: &Metadata,
        part: &Path,
        reporter: &mut Reporter,
        stop: &AtomicBool,
    ) -> Result<()> {
        let unwritten = |error| Failure::io("write", part, error);
        let mut to = File::options().create(true).append(true).open(part).map_err(unwritten)?;
        let mut failures = 0;
        loop {
            let have = to.metadata().map_err(unwritten)?.len();
            match metadata.size {
                Some(size) if have == size => break,
                Some(size) if have > size => to.set_len(0).map_err(unwritten)?,
                _ => {}
            }
            let have = to.metadata().map_err(unwritten)?.len();
            let begun = if have == 0 { String::new() } else { format!(", from {} on", bytes(have)) };
            let size = metadata.size.map_or_else(String::new, |size| format!(", {}", bytes(size)));
            reporter.say(format!("fetching {file}{size}{begun}"));
            let trouble = match self.stream(file, metadata, have, &mut to, reporter, stop)? {
                Ok(()) if metadata.size.is_none() => break,
                Ok(()) => Trouble::Network("the connection ended early".to_owned()),
                Err(trouble) => trouble,
            };
            let now = to.metadata().map_err(unwritten)?.len();
            if metadata.size == Some(now) {
                break;
            }
            failures = if now > have { 1 } else { failures + 1 };
            if !trouble.may_pass() || !self.wait(file, &trouble, failures, reporter, stop)? {
                return Err(self.refused(file, &trouble));
            }
        }
        to.sync_all().map_err(unwritten)
    }

    /// What people are said when the hub does not give a file.
    fn refused(&self, file: &Reference, trouble: &Trouble) -> Failure {
        refusal::refused(&self.client, &self.cache, file, trouble)
    }

    /// What one connection gives.
    fn stream(
        &self,
        file: &Reference,
        metadata: &Metadata,
        have: u64,
        to: &mut File,
        reporter: &mut Reporter,
        stop: &AtomicBool,
    ) -> Result<std::result::Result<(), Trouble>> {
        let unwritten = |error| Failure::io("write", &self.folder(file), error);
        let (begins, from) = match self.client.open(file, have) {
            Ok(open) => open,
            Err(trouble) => return Ok(Err(trouble)),
        };
        // A server that knows nothing of ranges begins at the beginning.
        if begins != have {
            to.set_len(0).map_err(unwritten)?;
            if begins != 0 {
                return Ok(Err(Trouble::Answer(format!("asked for what follows byte {have}, it sends byte {begins}"))));
            }
        }
        let mut position = begins;
        // A byte too many shows that the size is wrong.
        let mut from = from.take(metadata.size.map_or(u64::MAX, |size| size.saturating_sub(begins) + 1));
        let mut buffer = vec![0; 1 << 18];
        let started = Instant::now();
        loop {
            check_stop(file, stop)?;
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                Ok(count) => count,
                Err(error) => return Ok(Err(error.into())),
            };
            to.write_all(&buffer[..count]).map_err(unwritten)?;
            position += count as u64;
            let speed = (position - begins) as f64 / started.elapsed().as_secs_f64().max(1e-3);
            let text = format!("MiB, {}/s", bytes(speed as u64));
            reporter.progress(position >> 20, metadata.size.map(|size| size >> 20), &text);
        }
    }
}

fn check_stop(file: &Reference, stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Failure::interrupted(format!("{file}: stopped; what has arrived is kept"))),
        false => Ok(()),
    }
}

/// Compares what has arrived with what was announced; takes it away if it differs.
fn check(file: &Reference, metadata: &Metadata, part: &Path) -> Result<()> {
    let size = part.metadata().map_err(|error| Failure::io("read", part, error))?.len();
    let found = match metadata.etag.len() {
        64 => Some(digests::of_file(part).map_err(|error| Failure::io("read", part, error))?),
        // Of a small file the ETag is git's own hash.
        _ => None,
    };
    let what = match (metadata.size, found) {
        (Some(announced), _) if announced != size => format!("{size} bytes arrived, of {announced}"),
        (_, Some(found)) if found != metadata.etag => {
            format!("what arrived has the SHA-256 {found}, the hub says {}", metadata.etag)
        }
        _ => return Ok(()),
    };
    fs::remove_file(part).map_err(|error| Failure::io("remove", part, error))?;
    Err(Failure::failed(format!("{file}: {what}; it is removed"))
        .hint("fetch it again; if that does not help, something on the way (a proxy, a mirror) changes it"))
}
