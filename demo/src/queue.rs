//! The pieces of all visitors: which wait, which are being written, and which can still be looked at.
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::generate::Order;
use rand::Rng;
use serde_json::{Value, json};

use crate::{
    config::VisitorLimits,
    estimate,
    log::{Log, LogLine},
    piece::{PieceStatus, VisitorPiece},
};

/// A piece that nobody watches is stopped after this time.
const UNWATCHED: Duration = Duration::from_secs(60);
/// Pieces kept in memory. Beyond that the oldest are forgotten, first those that nobody watches.
const MOST_KEPT: usize = 200;
/// How often the waiting times are estimated anew.
const ESTIMATE_INTERVAL: Duration = Duration::from_millis(500);

/// What changes in the batch before its next round.
#[derive(Default)]
pub struct BatchChanges {
    /// The numbers of pieces to take out.
    pub stop: Vec<usize>,
    /// Pieces to put in.
    pub begin: Vec<Arc<VisitorPiece>>,
    /// The numbers of pieces that are forgotten: nobody can resume them.
    pub forgotten: Vec<usize>,
}

/// Why a piece is not put into the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum QueueError {
    /// So many pieces wait already.
    Full(usize),
    /// The server is stopping.
    Closed,
}

#[derive(Default)]
struct QueueState {
    pieces: HashMap<String, Arc<VisitorPiece>>,
    waiting: VecDeque<Arc<VisitorPiece>>,
    writing: Vec<Arc<VisitorPiece>>,
    forgotten: Vec<usize>,
    next_number: usize,
    /// Seconds that a piece spends in the batch, on average.
    typical_seconds: Option<f64>,
    /// How many pieces are written at once.
    slots: usize,
    estimated_at: Option<Instant>,
    closed: bool,
}

/// The queue between the threads that answer requests and the thread that writes.
pub struct PieceQueue {
    limits: VisitorLimits,
    log: Log,
    state: Mutex<QueueState>,
    /// Wakes the writing thread.
    wake: Condvar,
}

/// How busy the demo is.
#[derive(Debug, Clone, Copy)]
pub struct QueueLoad {
    pub slots: usize,
    pub writing: usize,
    pub queued: usize,
    pub closed: bool,
}

impl PieceQueue {
    pub fn new(limits: VisitorLimits, log: Log) -> PieceQueue {
        let state = QueueState { slots: limits.at_once, ..QueueState::default() };
        PieceQueue { limits, log, state: Mutex::new(state), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn limits(&self) -> &VisitorLimits {
        &self.limits
    }

    pub fn load(&self) -> QueueLoad {
        let state = self.lock();
        QueueLoad {
            slots: state.slots,
            writing: state.writing.len(),
            queued: state.waiting.len(),
            closed: state.closed,
        }
    }

    /// Logs what has become of a piece.
    pub fn log_piece(&self, event: &'static str, piece: &VisitorPiece, reason: &str) {
        let comma = if reason.is_empty() { "" } else { ": " };
        let message = format!("piece {} {event}{comma}{reason}", piece.number + 1);
        let (seconds, patches) = {
            let state = piece.state();
            (state.written_for(), state.patches)
        };
        let reason = if reason.is_empty() { Value::Null } else { json!(reason) };
        let fields = json!({ "piece": piece.id, "seconds": seconds, "patches": patches, "reason": reason });
        (self.log)(&LogLine { event, message, fields });
    }

    pub fn log_warning(&self, message: &str) {
        (self.log)(&LogLine { event: "warning", message: message.to_owned(), fields: json!({}) });
    }

    /// Puts a new piece into the queue.
    pub fn add(&self, order: Order) -> Result<Arc<VisitorPiece>, QueueError> {
        let piece = {
            let mut state = self.lock();
            self.check_room(&state)?;
            let id = format!("{:032x}", rand::rng().random::<u128>());
            let piece = Arc::new(VisitorPiece::new(id, state.next_number, order));
            state.next_number += 1;
            state.pieces.insert(piece.id.clone(), Arc::clone(&piece));
            state.waiting.push_back(Arc::clone(&piece));
            state.forget_oldest();
            state.estimate();
            piece
        };
        self.wake.notify_one();
        self.log_piece("queued", &piece, "");
        Ok(piece)
    }

    fn check_room(&self, state: &QueueState) -> Result<(), QueueError> {
        // Pieces that find a free slot at once do not wait: they do not count against the limit.
        let free_slots = state.slots.saturating_sub(state.writing.len());
        match state.closed {
            true => Err(QueueError::Closed),
            false if state.waiting.len() >= self.limits.queue + free_slots => {
                Err(QueueError::Full(state.waiting.len()))
            }
            false => Ok(()),
        }
    }

    pub fn find(&self, id: &str) -> Option<Arc<VisitorPiece>> {
        self.lock().pieces.get(id).cloned()
    }

    /// Stops a piece: a waiting one at once, one that is being written before the next round. Returns whether there was
    /// anything to stop.
    pub fn stop(&self, piece: &VisitorPiece, reason: &str) -> bool {
        let was_waiting = {
            let mut state = self.lock();
            let before = state.waiting.len();
            state.waiting.retain(|other| other.number != piece.number);
            let was_waiting = state.waiting.len() < before;
            state.estimate();
            was_waiting
        };
        if was_waiting {
            piece.stop(reason);
            self.log_piece("stopped", piece, reason);
            return true;
        }
        let writing = piece.change(|state| {
            let writing = state.status == PieceStatus::Writing;
            if writing && !state.stopping {
                (state.stopping, state.reason) = (true, Some(reason.to_owned()));
            }
            writing
        });
        self.wake.notify_one();
        writing
    }

    /// Puts a stopped piece into the queue again; `false` if it is not stopped.
    pub fn resume(&self, piece: &Arc<VisitorPiece>) -> Result<bool, QueueError> {
        {
            let mut state = self.lock();
            self.check_room(&state)?;
            if piece.state().status != PieceStatus::Stopped {
                return Ok(false);
            }
            piece.requeue();
            state.waiting.push_back(Arc::clone(piece));
            state.estimate();
        }
        self.wake.notify_one();
        self.log_piece("queued", piece, "");
        Ok(true)
    }

    /// What changes in the batch, which has `free` of its `slots` free; `None` once the queue is closed. If the batch is
    /// `empty` and nothing waits, this blocks for up to [`ESTIMATE_INTERVAL`].
    pub fn next_changes(&self, free: usize, slots: usize, empty: bool) -> Option<BatchChanges> {
        let mut unwatched = Vec::new();
        let changes = {
            let mut state = self.lock();
            if empty && state.waiting.is_empty() && !state.closed {
                state = self.wake.wait_timeout(state, ESTIMATE_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.closed {
                return None;
            }
            state.slots = slots;
            let mut changes =
                BatchChanges { forgotten: std::mem::take(&mut state.forgotten), ..BatchChanges::default() };
            changes.stop.extend(state.writing.iter().filter(|piece| piece.state().stopping).map(|piece| piece.number));
            while changes.begin.len() < free
                && let Some(piece) = state.waiting.pop_front()
            {
                piece.enter_batch();
                state.writing.push(Arc::clone(&piece));
                changes.begin.push(piece);
            }
            if !changes.begin.is_empty() || state.estimated_at.is_none_or(|at| at.elapsed() > ESTIMATE_INTERVAL) {
                state.estimate();
                let all = state.writing.iter().chain(&state.waiting);
                unwatched.extend(all.filter(|piece| piece.state().unwatched_for() > UNWATCHED).cloned());
            }
            changes
        };
        for piece in unwatched {
            self.stop(&piece, "nobody follows it any more");
        }
        Some(changes)
    }

    /// Notes that a piece has left the batch.
    pub fn leave_batch(&self, piece: &VisitorPiece) {
        let mut state = self.lock();
        state.writing.retain(|other| other.number != piece.number);
        let written = piece.state();
        if written.status == PieceStatus::Finished {
            state.typical_seconds = Some(estimate::running_mean(state.typical_seconds, written.written_for()));
        }
    }

    /// Closes the queue: nothing more is written, and nobody waits any longer.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for piece in state.pieces.values() {
            piece.change(|state| state.closed = true);
        }
        drop(state);
        self.wake.notify_one();
    }
}

impl QueueState {
    /// Estimates for every piece how long it still takes or waits.
    fn estimate(&mut self) {
        self.estimated_at = Some(Instant::now());
        let left: Vec<Option<f64>> = self.writing.iter().map(|piece| piece.state().seconds_left()).collect();
        for (piece, left) in self.writing.iter().zip(&left) {
            piece.state().seconds = *left;
        }
        let waits = estimate::waits(self.slots, &left, self.typical_seconds, self.waiting.len());
        for (ahead, (piece, seconds)) in self.waiting.iter().zip(waits).enumerate() {
            let state = piece.state();
            let seconds = seconds.map(f64::ceil);
            if (state.ahead, state.seconds) != (ahead, seconds) {
                drop(state);
                piece.change(|state| (state.ahead, state.seconds) = (ahead, seconds));
            }
        }
    }

    /// Forgets the oldest pieces that are neither waiting nor being written.
    fn forget_oldest(&mut self) {
        if self.pieces.len() <= MOST_KEPT {
            return;
        }
        let is_over =
            |piece: &&Arc<VisitorPiece>| !matches!(piece.state().status, PieceStatus::Queued | PieceStatus::Writing);
        let mut over: Vec<Arc<VisitorPiece>> = self.pieces.values().filter(is_over).cloned().collect();
        over.sort_by_key(|piece| (piece.state().unwatched_for().is_zero(), piece.number));
        for piece in over.iter().take(self.pieces.len() - MOST_KEPT) {
            self.pieces.remove(&piece.id);
            self.forgotten.push(piece.number);
        }
    }
}
