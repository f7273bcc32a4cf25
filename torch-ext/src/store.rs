//! Where ranks meet: PyTorch's `TCPStore`, and signs of life by which a rank that is gone or hangs can be named.
use crate::ffi::{Ptr, check, te_free, te_store_free, te_store_get, te_store_new, te_store_set};
use crate::{Error, Result};
use std::ffi::{CString, c_char, c_int};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// A rank that has shown no sign of life for so many beats is gone: less is a machine with much to do.
const SILENT: u32 = 5;
/// What a store that works needs at most for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to the store.
struct Store(Ptr);

// SAFETY: a TCPStore guards its connection with a lock of its own.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `te_store_new`, and freed once.
        unsafe { te_store_free(self.0) }
    }
}

pub(crate) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error(format!("{text:?} has a NUL in it")))
}

impl Store {
    fn new(host: &str, port: u16, serve: bool, timeout: Duration, prefix: &str) -> Result<(Store, u16)> {
        let (host, prefix) = (c_string(host)?, c_string(prefix)?);
        let (mut store, mut listens) = (std::ptr::null_mut(), 0);
        let timeout = timeout.as_millis() as i64;
        // SAFETY: two strings and two out-pointers, valid for the call.
        check(unsafe {
            te_store_new(host.as_ptr(), port, serve.into(), timeout, prefix.as_ptr(), &mut store, &mut listens)
        })?;
        Ok((Store(store), listens))
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: a live store, a string, and a slice that is copied.
        check(unsafe { te_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    fn get(&self, key: &str) -> Result<Option<String>> {
        let key = c_string(key)?;
        let (mut found, mut data, mut length): (c_int, *mut c_char, usize) = (0, std::ptr::null_mut(), 0);
        // SAFETY: a live store, a string, three out-pointers.
        check(unsafe { te_store_get(self.0, key.as_ptr(), &mut found, &mut data, &mut length) })?;
        if found == 0 {
            return Ok(None);
        }
        // SAFETY: the shim allocated `length` bytes at `data`, which are freed once, here.
        let bytes = unsafe {
            let bytes = std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec();
            te_free(data);
            bytes
        };
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// A store that others meet at, kept by a process that is not a rank.
pub struct Server {
    _store: Store,
    port: u16,
}

impl Server {
    /// Listens on a free port.
    pub fn start() -> Result<Server> {
        let (store, port) = Store::new("127.0.0.1", 0, true, ANSWER, "")?;
        Ok(Server { _store: store, port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// How a rank joins the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Where the store listens.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether this rank keeps the store.
    pub serve: bool,
    /// This rank.
    pub rank: usize,
    /// Ranks in all.
    pub size: usize,
    /// A peer that does not answer for so long is an error.
    pub timeout: Duration,
    /// Tells this attempt's keys from those of others at the same store.
    pub prefix: String,
}

/// The ranks of a job: their store and their signs of life.
pub struct World {
    join: Join,
    store: Arc<Store>,
    stop: Option<(Sender<()>, JoinHandle<()>)>,
    /// Collectives begun.
    pub(crate) begun: Arc<AtomicU64>,
    groups: AtomicU64,
}

impl World {
    /// Connects to the store, or keeps it, and begins to show signs of life.
    pub fn join(join: &Join) -> Result<World> {
        if join.rank >= join.size {
            return Err(Error(format!("rank {} of {}", join.rank, join.size)));
        }
        let connect = |serve| Store::new(&join.host, join.port, serve, join.timeout, &join.prefix);
        let at =
            |Error(e)| Error(format!("rank {} cannot reach the others at {}:{}: {e}", join.rank, join.host, join.port));
        let (store, _) = connect(join.serve).map_err(at)?;
        // A connection of its own: one that waits blocks the other.
        let (beating, _) = connect(false).map_err(at)?;
        let begun = Arc::new(AtomicU64::new(0));
        let (key, count) = (format!("beat/{}", join.rank), begun.clone());
        beating.set(&key, "0 0")?;
        let (stop, stopped) = mpsc::channel();
        let beats = std::thread::spawn(move || {
            let mut tick = 0_u64;
            while matches!(stopped.recv_timeout(BEAT), Err(RecvTimeoutError::Timeout)) {
                tick += 1;
                if beating.set(&key, &format!("{tick} {}", count.load(Ordering::Relaxed))).is_err() {
                    return;
                }
            }
        });
        let (store, groups) = (Arc::new(store), AtomicU64::new(0));
        Ok(World { join: join.clone(), store, stop: Some((stop, beats)), begun, groups })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.join.rank
    }

    /// Ranks in all.
    pub fn size(&self) -> usize {
        self.join.size
    }

    /// After how long a peer that does not answer is an error.
    pub fn timeout(&self) -> Duration {
        self.join.timeout
    }

    pub(crate) fn store(&self) -> Ptr {
        self.store.0
    }

    pub(crate) fn meeting(&self) -> (&str, u16) {
        (&self.join.host, self.join.port)
    }

    /// The number of the next group, the same on all ranks.
    pub(crate) fn next_group(&self) -> u64 {
        self.groups.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks the store, which may be on a machine that no longer answers.
    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let (send, receive) = mpsc::channel();
        let store = self.store.clone();
        std::thread::spawn(move || send.send(ask(&store)));
        let (host, port) = self.meeting();
        match receive.recv_timeout(ANSWER) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Error(error))) => {
                Err(Error(format!("the process that all ranks meet at, {host}:{port}, is gone: {error}")))
            }
            Err(_) => Err(Error(format!("the process that all ranks meet at, {host}:{port}, does not answer"))),
        }
    }

    /// Tells the others something.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.ask(move |store| store.set(&key, &value))
    }

    /// What a rank has told, if it has yet.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let key = key.to_owned();
        self.ask(move |store| store.get(&key))
    }

    /// Waits until rank `from` tells `key`, however long that takes, as long as that rank lives.
    pub fn wait(&self, key: &str, from: usize) -> Result<String> {
        let (mut beat, mut seen) = (None, Instant::now());
        let mut look = Instant::now();
        loop {
            if let Some(value) = self.get(key)? {
                return Ok(value);
            }
            if look.elapsed() >= BEAT {
                look = Instant::now();
                if let Some(reason) = self.get(&format!("failed/{from}"))? {
                    return Err(Error(format!("rank {from} failed: {reason}")));
                }
                let now = self.get(&format!("beat/{from}"))?;
                if now != beat {
                    (beat, seen) = (now, Instant::now());
                } else if seen.elapsed() > self.join.timeout {
                    let seconds = self.join.timeout.as_secs_f64();
                    return Err(Error(format!("rank {from} has shown no sign of life for {seconds:.0} s")));
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Tells the others why this rank ends.
    pub fn fail(&self, reason: &str) {
        // The others find out either way; a store that is gone is no further failure.
        let _ = self.set(&format!("failed/{}", self.join.rank), reason);
    }

    /// Who is to blame for a failure of a collective, as far as can be known.
    pub(crate) fn blame(&self) -> String {
        self.find_blame().unwrap_or_else(|Error(error)| error)
    }

    fn find_blame(&self) -> Result<String> {
        let me = self.join.rank;
        self.set(&format!("left/{me}"), "")?;
        let peers: Vec<usize> = (0..self.join.size).filter(|&rank| rank != me).collect();
        let failed = || -> Result<Option<String>> {
            for rank in &peers {
                if let Some(reason) = self.get(&format!("failed/{rank}"))? {
                    return Ok(Some(format!("rank {rank} failed: {reason}")));
                }
            }
            Ok(None)
        };
        let beats = || peers.iter().map(|rank| self.get(&format!("beat/{rank}"))).collect::<Result<Vec<_>>>();
        let before = beats()?;
        let begun = Instant::now();
        let mut silent = peers.clone();
        let mut last = before.clone();
        while !silent.is_empty() && begun.elapsed() < BEAT * SILENT {
            if let Some(reason) = failed()? {
                return Ok(reason);
            }
            std::thread::sleep(LOOK);
            last = beats()?;
            silent = peers.iter().zip(before.iter().zip(&last)).filter(|(_, (a, b))| a == b).map(|(&r, _)| r).collect();
        }
        if let Some(reason) = failed()? {
            return Ok(reason);
        }
        let left = |rank: &usize| Ok::<_, Error>(self.get(&format!("left/{rank}"))?.is_some());
        let mut gone = Vec::new();
        for rank in silent {
            if !left(&rank)? {
                gone.push(rank);
            }
        }
        if !gone.is_empty() {
            return Ok(format!("{} ended or hangs: no sign of life", ranks(&gone)));
        }
        let mine = self.begun.load(Ordering::Relaxed);
        let count = |beat: &Option<String>| beat.as_ref()?.split_once(' ')?.1.parse::<u64>().ok();
        let mut behind = Vec::new();
        for (rank, beat) in peers.iter().zip(&last) {
            if count(beat).is_some_and(|count| count < mine) && !left(rank)? {
                behind.push(*rank);
            }
        }
        Ok(match behind.is_empty() {
            false => format!("{} lives but has not come so far", ranks(&behind)),
            true => "no rank can be named: a connection was lost".to_owned(),
        })
    }
}

fn ranks(ranks: &[usize]) -> String {
    let list = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    if ranks.len() == 1 { format!("rank {list}") } else { format!("ranks {list}") }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((stop, beats)) = self.stop.take() {
            drop(stop);
            let begun = Instant::now();
            // A beat that hangs because the store does is left to itself.
            while !beats.is_finished() && begun.elapsed() < BEAT {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.join.rank, self.join.size)
    }
}
