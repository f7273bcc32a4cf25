//! Where ranks meet: PyTorch's `TCPStore`, and signs of life by which a rank that is gone or hangs can be named.
use crate::ffi::{
    Ptr, c_string, check, te_free, te_store_add, te_store_free, te_store_get, te_store_new, te_store_set,
};
use crate::{Error, ErrorKind, Result};
use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A rank that has shown no sign of life for so many heartbeats is gone: fewer are missed on a busy machine.
const MISSED_HEARTBEATS: u32 = 5;
/// What a store that works needs at most for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the store.
pub(crate) struct Store(Ptr);

// SAFETY: a connection belongs to no thread.
unsafe impl Send for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `te_store_new`, and freed once.
        unsafe { te_store_free(self.0) }
    }
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

    pub(crate) fn pointer(&self) -> Ptr {
        self.0
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

    /// Whether no rank has asked for this before.
    fn claim(&self, key: &str) -> Result<bool> {
        let (key, mut sum) = (c_string(key)?, 0);
        // SAFETY: a live store, a string and an out-pointer.
        check(unsafe { te_store_add(self.0, key.as_ptr(), 1, &mut sum) })?;
        Ok(sum == 1)
    }
}

/// A store that others meet at, kept by a process that is not a rank.
pub struct StoreServer {
    _store: Store,
    port: u16,
}

impl StoreServer {
    /// Listens on a free port.
    pub fn start() -> Result<StoreServer> {
        let (store, port) = Store::new("127.0.0.1", 0, true, ANSWER_TIMEOUT, "")?;
        Ok(StoreServer { _store: store, port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// How a rank joins the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOptions {
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

type Query = Box<dyn FnOnce(&Store) + Send>;

/// The ranks of a job: their store and their signs of life.
pub struct World {
    join: JoinOptions,
    /// For groups, which wait in it for each other. c10d's stores may be used by several threads, and are not made for it.
    store: Mutex<Store>,
    /// Sends a heartbeat now and then, and asks what is to be asked, over a connection of its own.
    messenger: Option<(Mutex<Sender<Query>>, JoinHandle<()>)>,
    /// Collectives begun.
    pub(crate) begun: Arc<AtomicU64>,
    groups: AtomicU64,
}

impl World {
    /// Connects to the store, or keeps it, and begins to show signs of life.
    pub fn join(join: &JoinOptions) -> Result<World> {
        if join.rank >= join.size {
            return Err(error!(Argument, "rank {} of {}", join.rank, join.size));
        }
        let connect = |serve| Store::new(&join.host, join.port, serve, join.timeout, &join.prefix);
        let at = |e| error!(Peer, "rank {} cannot reach the others at {}:{}: {e}", join.rank, join.host, join.port);
        let (store, _) = connect(join.serve).map_err(at)?;
        let (own, _) = connect(false).map_err(at)?;
        let begun = Arc::new(AtomicU64::new(0));
        let (key, count) = (format!("beat/{}", join.rank), begun.clone());
        own.set(&key, "0 0")?;
        let (sender, queries) = mpsc::channel::<Query>();
        let thread = std::thread::spawn(move || {
            let (mut tick, mut last) = (0_u64, Instant::now());
            loop {
                match queries.recv_timeout(HEARTBEAT_INTERVAL.saturating_sub(last.elapsed())) {
                    Ok(query) => query(&own),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => (),
                }
                if last.elapsed() >= HEARTBEAT_INTERVAL {
                    (tick, last) = (tick + 1, Instant::now());
                    // A store that is gone is an error of the next query.
                    let _ = own.set(&key, &format!("{tick} {}", count.load(Ordering::Relaxed)));
                }
            }
        });
        let messenger = Some((Mutex::new(sender), thread));
        Ok(World { join: join.clone(), store: Mutex::new(store), messenger, begun, groups: AtomicU64::new(0) })
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

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
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
        let query: Query = Box::new(move |store| drop(send.send(ask(store))));
        if let Some((queries, _)) = &self.messenger {
            let _ = queries.lock().unwrap_or_else(PoisonError::into_inner).send(query);
        }
        let (host, port) = self.meeting();
        let store = format!("the process that all ranks meet at, {host}:{port},");
        match receive.recv_timeout(ANSWER_TIMEOUT) {
            Ok(Err(e)) if matches!(e.kind(), ErrorKind::Peer | ErrorKind::Internal) => {
                Err(error!(Peer, "{store} is gone: {e}"))
            }
            Ok(answer) => answer,
            Err(_) => Err(error!(Peer, "{store} does not answer")),
        }
    }

    /// Publishes a value under a key.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.ask(move |store| store.set(&key, &value))
    }

    /// The value of a key, if a rank has set it yet.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let key = key.to_owned();
        self.ask(move |store| store.get(&key))
    }

    /// Waits until rank `from` sets `key`, without a limit while that rank lives.
    pub fn wait(&self, key: &str, from: usize) -> Result<String> {
        let (mut beat, mut seen) = (None, Instant::now());
        let mut checked = Instant::now();
        loop {
            if let Some(value) = self.get(key)? {
                return Ok(value);
            }
            if checked.elapsed() >= HEARTBEAT_INTERVAL {
                checked = Instant::now();
                if let Some(reason) = self.get("failed")? {
                    return Err(error!(Peer, "{reason}"));
                }
                let now = self.get(&format!("beat/{from}"))?;
                if now != beat {
                    (beat, seen) = (now, Instant::now());
                } else if seen.elapsed() > self.join.timeout {
                    let seconds = self.join.timeout.as_secs_f64();
                    return Err(error!(Peer, "rank {from} has shown no sign of life for {seconds:.0} s"));
                }
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Publishes why this rank ends.
    pub fn fail(&self, reason: &str) {
        // The others find out either way; a store that is gone is no further failure.
        let _ = self.set("failed", &format!("rank {} failed: {reason}", self.join.rank));
    }

    /// Who is to blame for a failure of a collective, as far as can be known.
    pub(crate) fn blame(&self) -> String {
        self.find_blame().unwrap_or_else(|error| error.to_string())
    }

    /// One rank looks at all others, and the rest wait for what it finds: a store of many ranks could not answer if each asked
    /// it about each.
    fn find_blame(&self) -> Result<String> {
        self.set(&format!("left/{}", self.join.rank), "")?;
        if self.ask(|store| store.claim("blame/claimed"))? {
            let blame = self.investigate()?;
            self.set("blame", &blame)?;
            return Ok(blame);
        }
        let begun = Instant::now();
        while begun.elapsed() < 2 * HEARTBEAT_INTERVAL * MISSED_HEARTBEATS {
            if let Some(blame) = self.get("blame")? {
                return Ok(blame);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        // The rank that was to find out has ended, too.
        self.investigate()
    }

    fn investigate(&self) -> Result<String> {
        let peers = || (0..self.join.size).filter(|&rank| rank != self.join.rank);
        let beat = |rank: usize| self.get(&format!("beat/{rank}"));
        // Each peer with its heartbeat at first, and what it says of its progress.
        let mut silent = peers().map(|rank| Ok((rank, beat(rank)?))).collect::<Result<Vec<_>>>()?;
        let mut alive = Vec::new();
        let begun = Instant::now();
        loop {
            if let Some(reason) = self.get("failed")? {
                return Ok(reason);
            }
            if silent.is_empty() || begun.elapsed() >= HEARTBEAT_INTERVAL * MISSED_HEARTBEATS {
                break;
            }
            std::thread::sleep(POLL_INTERVAL);
            for (rank, before) in std::mem::take(&mut silent) {
                let now = beat(rank)?;
                if now == before { silent.push((rank, before)) } else { alive.push((rank, now)) }
            }
        }
        let left = |rank: usize| Ok::<_, Error>(self.get(&format!("left/{rank}"))?.is_some());
        let remaining = |ranks: &mut dyn Iterator<Item = usize>| -> Result<Vec<usize>> {
            ranks.filter_map(|rank| left(rank).map(|left| (!left).then_some(rank)).transpose()).collect()
        };
        let gone = remaining(&mut silent.iter().map(|(rank, _)| *rank))?;
        if !gone.is_empty() {
            return Ok(format!("{} ended or hangs: no sign of life", ranks(&gone)));
        }
        let mine = self.begun.load(Ordering::Relaxed);
        let count = |beat: &Option<String>| beat.as_ref()?.split_once(' ')?.1.parse::<u64>().ok();
        let slower = alive.iter().filter(|(_, beat)| count(beat).is_some_and(|count| count < mine));
        let behind = remaining(&mut slower.map(|(rank, _)| *rank))?;
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
        if let Some((queries, thread)) = self.messenger.take() {
            drop(queries);
            let begun = Instant::now();
            while !thread.is_finished() && begun.elapsed() < HEARTBEAT_INTERVAL {
                std::thread::sleep(Duration::from_millis(5));
            }
            // A thread that hangs because the store does is left to itself.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.join.rank, self.join.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn one_thread_asks_the_store_and_ends_with_the_world() {
        let server = StoreServer::start().unwrap();
        let (host, port, timeout) = ("127.0.0.1".to_owned(), server.port(), Duration::from_secs(9));
        let join = JoinOptions { host, port, serve: false, rank: 0, size: 1, timeout, prefix: "test".to_owned() };
        let world = World::join(&join).unwrap();
        let threads: HashSet<_> = (0..9).map(|_| world.ask(|_| Ok(std::thread::current().id())).unwrap()).collect();
        assert_eq!(threads.len(), 1);
        let begun = Instant::now();
        drop(world);
        assert!(begun.elapsed() < HEARTBEAT_INTERVAL);
    }
}
