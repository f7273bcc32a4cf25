//! A visitor's piece: what was asked for, and how far it is.
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::generate::{Order, Outcome};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::growing::Growing;

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for a place among those being written.
    Queued,
    /// It is being written.
    Writing,
    /// Stopped; it can go on from here.
    Stopped,
    /// Complete.
    Finished,
    /// Given up.
    Failed,
}

/// A piece.
pub struct Piece {
    /// Not to be guessed by others.
    pub id: String,
    /// Its name in the batch.
    pub number: usize,
    /// What is written.
    pub order: Order,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// How far a piece is.
#[derive(Debug)]
pub struct State {
    pub status: Status,
    /// From 1; 0 before the first.
    pub attempt: u32,
    /// Why it was stopped or given up.
    pub reason: Option<String>,
    /// Why the attempt before this one failed.
    pub last_failure: Option<String>,
    /// The prompt, and what is written.
    pub text: String,
    pub music: Growing,
    /// Pieces before it in the queue.
    pub ahead: usize,
    /// Until it begins, or until it is complete; not always known.
    pub seconds: Option<f64>,
    /// Of a finished one.
    pub outcome: Option<Outcome>,
    pub patches: usize,
    /// It is to be taken out of the batch.
    pub stopping: bool,
    /// The server ends.
    pub closed: bool,
    /// In the batch since.
    since: Option<Instant>,
    /// In the batch before that.
    before: Duration,
    /// Bars that the attempt began with.
    given: usize,
    listeners: usize,
    heard: Instant,
}

impl State {
    /// Time in the batch.
    pub fn written_for(&self) -> f64 {
        (self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())).as_secs_f64()
    }

    /// What a piece being written still takes, judging by the bars that it says are to come.
    pub fn left(&self) -> Option<f64> {
        let bars = self.music.bars.len().checked_sub(self.given).filter(|bars| *bars > 0)?;
        Some(self.written_for() / bars as f64 * self.music.to_come? as f64)
    }

    /// Nobody has looked for this long.
    pub fn unheard(&self) -> Duration {
        if self.listeners > 0 { Duration::ZERO } else { self.heard.elapsed() }
    }

    fn rest(&mut self) {
        self.before += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        (self.seconds, self.stopping) = (None, false);
    }
}

impl Piece {
    pub fn new(id: String, number: usize, order: Order) -> Piece {
        let state = State {
            status: Status::Queued,
            attempt: 0,
            reason: None,
            last_failure: None,
            text: String::new(),
            music: Growing::default(),
            ahead: 0,
            seconds: None,
            outcome: None,
            patches: 0,
            stopping: false,
            closed: false,
            since: None,
            before: Duration::ZERO,
            given: 0,
            listeners: 0,
            heard: Instant::now(),
        };
        Piece { id, number, order, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, and wakes those who listen.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }

    /// Who listens is told of every change.
    pub fn listen(piece: Arc<Piece>) -> Listener {
        piece.state().listeners += 1;
        let changes = piece.changed.subscribe();
        Listener { piece, changes }
    }

    /// Somebody has looked.
    pub fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.heard = Instant::now();
        state
    }

    /// Into the queue, the first time or again.
    pub fn queue(&self) {
        self.change(|state| {
            (state.status, state.reason) = (Status::Queued, None);
            state.heard = Instant::now();
        });
    }

    /// Out of the queue, into the batch.
    pub fn enter(&self) {
        self.change(|state| {
            (state.status, state.ahead, state.seconds) = (Status::Writing, 0, None);
            state.since = Some(Instant::now());
        });
    }

    /// An attempt begins.
    pub fn begin(&self, attempt: u32, text: &str) {
        self.change(|state| {
            (state.attempt, state.text, state.music) = (attempt, text.to_owned(), Growing::default());
            state.music.update(text);
            state.given = state.music.bars.len();
        });
    }

    /// A patch more.
    pub fn add(&self, text: &str) {
        self.change(|state| {
            state.text.push_str(text);
            state.patches += 1;
            if text.contains('\n') {
                let text = std::mem::take(&mut state.text);
                state.music.update(&text);
                state.text = text;
            }
        });
    }

    pub fn stop(&self, reason: &str) {
        self.end(Status::Stopped, Some(reason.to_owned()));
    }

    pub fn fail(&self, reason: String) {
        self.end(Status::Failed, Some(reason));
    }

    /// An attempt has failed, and another follows.
    pub fn fail_once(&self, reason: String) {
        self.change(|state| state.last_failure = Some(reason));
    }

    pub fn finish(&self, outcome: Outcome) {
        self.change(|state| {
            let text = std::mem::take(&mut state.text);
            // A limit cuts where it cuts, mostly in the middle of a bar.
            if outcome != Outcome::Stopped {
                state.music.finish(&text);
            }
            state.text = text;
            state.outcome = Some(outcome);
        });
        self.end(Status::Finished, None);
    }

    fn end(&self, status: Status, reason: Option<String>) {
        self.change(|state| {
            state.rest();
            (state.status, state.reason) = (status, reason);
        });
    }
}

/// Somebody who follows a piece.
pub struct Listener {
    pub piece: Arc<Piece>,
    pub changes: watch::Receiver<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.piece.state();
        state.listeners -= 1;
        state.heard = Instant::now();
    }
}
