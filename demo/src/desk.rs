//! Who waits, whose piece is being written, and what there is to look at.
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::generate::Order;
use rand::Rng;
use serde_json::{Value, json};

use crate::{
    Limits, Line, Log, estimate,
    piece::{Piece, Status},
};

/// A piece that nobody follows is stopped after this time.
const UNHEARD: Duration = Duration::from_secs(60);
/// Pieces kept to look at; of more the oldest are forgotten, those first that nobody follows.
const KEPT: usize = 200;
/// Waiting times are told anew so often.
const TICK: Duration = Duration::from_millis(500);

/// What happens to the batch next.
#[derive(Default)]
pub struct Tasks {
    /// Pieces to take out.
    pub stop: Vec<usize>,
    /// Pieces to put in.
    pub begin: Vec<Arc<Piece>>,
    /// Pieces that nobody can ask for any more.
    pub forgotten: Vec<usize>,
}

/// Why a piece is not taken on.
#[derive(Debug, PartialEq, Eq)]
pub enum Full {
    /// The queue is.
    Queue(usize),
    /// The server ends.
    Closed,
}

struct Inner {
    pieces: HashMap<String, Arc<Piece>>,
    queue: VecDeque<Arc<Piece>>,
    writing: Vec<Arc<Piece>>,
    forgotten: Vec<usize>,
    next: usize,
    /// Seconds that a piece spends in the batch.
    typical: Option<f64>,
    /// Pieces written at once.
    slots: usize,
    told: Instant,
    closed: bool,
}

/// Between those who ask and the one who writes.
pub struct Desk {
    limits: Limits,
    log: Log,
    inner: Mutex<Inner>,
    wake: Condvar,
}

/// How busy it is.
#[derive(Debug, Clone, Copy)]
pub struct Busy {
    pub slots: usize,
    pub writing: usize,
    pub queued: usize,
    pub closed: bool,
}

impl Desk {
    pub fn new(limits: Limits, log: Log) -> Desk {
        let inner = Inner {
            pieces: HashMap::new(),
            queue: VecDeque::new(),
            writing: Vec::new(),
            forgotten: Vec::new(),
            next: 0,
            typical: None,
            slots: limits.at_once,
            told: Instant::now(),
            closed: false,
        };
        Desk { limits, log, inner: Mutex::new(inner), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn busy(&self) -> Busy {
        let inner = self.lock();
        Busy { slots: inner.slots, writing: inner.writing.len(), queued: inner.queue.len(), closed: inner.closed }
    }

    /// Says what has become of a piece.
    pub fn say(&self, event: &'static str, piece: &Piece, more: &str) {
        let comma = if more.is_empty() { "" } else { ": " };
        let message = format!("piece {} {event}{comma}{more}", piece.number + 1);
        let (seconds, patches) = {
            let state = piece.state();
            (state.written_for(), state.patches)
        };
        let reason = if more.is_empty() { Value::Null } else { json!(more) };
        let fields = json!({ "piece": piece.id, "seconds": seconds, "patches": patches, "reason": reason });
        (self.log)(&Line { event, message, fields });
    }

    pub fn warn(&self, message: &str) {
        (self.log)(&Line { event: "warning", message: message.to_owned(), fields: json!({}) });
    }

    /// Takes a piece on.
    pub fn add(&self, order: Order) -> Result<Arc<Piece>, Full> {
        let piece = {
            let mut inner = self.lock();
            self.room(&inner)?;
            let id = format!("{:032x}", rand::rng().random::<u128>());
            let piece = Arc::new(Piece::new(id, inner.next, order));
            inner.next += 1;
            inner.pieces.insert(piece.id.clone(), Arc::clone(&piece));
            inner.queue.push_back(Arc::clone(&piece));
            inner.forget();
            inner.tell();
            piece
        };
        self.wake.notify_one();
        self.say("queued", &piece, "");
        Ok(piece)
    }

    fn room(&self, inner: &Inner) -> Result<(), Full> {
        match inner.closed {
            true => Err(Full::Closed),
            // Those who find a free place at once do not wait.
            false if inner.queue.len() >= self.limits.queue + inner.slots.saturating_sub(inner.writing.len()) => {
                Err(Full::Queue(inner.queue.len()))
            }
            false => Ok(()),
        }
    }

    pub fn piece(&self, id: &str) -> Option<Arc<Piece>> {
        self.lock().pieces.get(id).cloned()
    }

    /// Stops a piece; one that is being written a moment later. Says whether there was anything to stop.
    pub fn stop(&self, piece: &Piece, reason: &str) -> bool {
        let waited = {
            let mut inner = self.lock();
            let before = inner.queue.len();
            inner.queue.retain(|other| other.number != piece.number);
            let waited = inner.queue.len() < before;
            inner.tell();
            waited
        };
        if waited {
            piece.stop(reason);
            self.say("stopped", piece, reason);
            return true;
        }
        let writing = piece.change(|state| {
            let writing = state.status == Status::Writing;
            if writing && !state.stopping {
                (state.stopping, state.reason) = (true, Some(reason.to_owned()));
            }
            writing
        });
        self.wake.notify_one();
        writing
    }

    /// Puts a stopped piece into the queue again; `false` if it is not stopped.
    pub fn resume(&self, piece: &Arc<Piece>) -> Result<bool, Full> {
        {
            let mut inner = self.lock();
            self.room(&inner)?;
            if piece.state().status != Status::Stopped {
                return Ok(false);
            }
            piece.queue();
            inner.queue.push_back(Arc::clone(piece));
            inner.tell();
        }
        self.wake.notify_one();
        self.say("queued", piece, "");
        Ok(true)
    }

    /// What happens to the batch next, `free` pieces having room in it; none when all is over. Waits while there is
    /// nothing to do and nothing in the batch.
    pub fn next(&self, free: usize, slots: usize, empty: bool) -> Option<Tasks> {
        let mut unheard = Vec::new();
        let tasks = {
            let mut inner = self.lock();
            if empty && inner.queue.is_empty() && !inner.closed {
                inner = self.wake.wait_timeout(inner, TICK).unwrap_or_else(PoisonError::into_inner).0;
            }
            if inner.closed {
                return None;
            }
            inner.slots = slots;
            let mut tasks = Tasks { forgotten: std::mem::take(&mut inner.forgotten), ..Tasks::default() };
            tasks.stop.extend(inner.writing.iter().filter(|piece| piece.state().stopping).map(|piece| piece.number));
            while tasks.begin.len() < free
                && let Some(piece) = inner.queue.pop_front()
            {
                piece.enter();
                inner.writing.push(Arc::clone(&piece));
                tasks.begin.push(piece);
            }
            if !tasks.begin.is_empty() || inner.told.elapsed() > TICK {
                inner.tell();
                let all = inner.writing.iter().chain(&inner.queue);
                unheard.extend(all.filter(|piece| piece.state().unheard() > UNHEARD).cloned());
            }
            tasks
        };
        for piece in unheard {
            self.stop(&piece, "nobody follows it any more");
        }
        Some(tasks)
    }

    /// A piece has left the batch.
    pub fn leave(&self, piece: &Piece) {
        let mut inner = self.lock();
        inner.writing.retain(|other| other.number != piece.number);
        let state = piece.state();
        if state.status == Status::Finished {
            inner.typical = Some(estimate::follow(inner.typical, state.written_for()));
        }
    }

    /// Nothing is written any more, and nobody waits.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for piece in inner.pieces.values() {
            piece.change(|state| state.closed = true);
        }
        drop(inner);
        self.wake.notify_one();
    }
}

impl Inner {
    /// Tells everybody how long it takes.
    fn tell(&mut self) {
        self.told = Instant::now();
        let left: Vec<Option<f64>> = self.writing.iter().map(|piece| piece.state().left()).collect();
        for (piece, left) in self.writing.iter().zip(&left) {
            piece.state().seconds = *left;
        }
        let waits = estimate::waits(self.slots, &left, self.typical, self.queue.len());
        for (ahead, (piece, seconds)) in self.queue.iter().zip(waits).enumerate() {
            let state = piece.state();
            let seconds = seconds.map(f64::ceil);
            if (state.ahead, state.seconds) != (ahead, seconds) {
                drop(state);
                piece.change(|state| (state.ahead, state.seconds) = (ahead, seconds));
            }
        }
    }

    /// Forgets the oldest pieces that are over.
    fn forget(&mut self) {
        if self.pieces.len() <= KEPT {
            return;
        }
        let over = |piece: &&Arc<Piece>| !matches!(piece.state().status, Status::Queued | Status::Writing);
        let mut over: Vec<Arc<Piece>> = self.pieces.values().filter(over).cloned().collect();
        over.sort_by_key(|piece| (piece.state().unheard().is_zero(), piece.number));
        for piece in over.iter().take(self.pieces.len() - KEPT) {
            self.pieces.remove(&piece.id);
            self.forgotten.push(piece.number);
        }
    }
}
