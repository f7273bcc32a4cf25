//! A visitor's piece: what was asked for, and how far it has come.
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::generate::{Order, Outcome};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::partial_score::PartialScore;

/// Where a piece is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Status)]
#[serde(rename_all = "snake_case")]
pub enum PieceStatus {
    /// It waits for a place among those being written.
    #[default]
    Queued,
    /// It is being written.
    Writing,
    /// Stopped; it can be resumed.
    Stopped,
    /// Complete.
    Finished,
    /// Given up.
    Failed,
}

/// A piece that a visitor asked for.
pub struct VisitorPiece {
    /// Random, so that others cannot guess it.
    pub id: String,
    /// Its number in the batch, counted from 0 over all pieces.
    pub number: usize,
    /// What to write.
    pub order: Order,
    state: Mutex<PieceState>,
    changed: watch::Sender<()>,
}

/// How far a piece has come.
#[derive(Debug, Default)]
pub struct PieceState {
    pub status: PieceStatus,
    /// The attempt, counted from 1; 0 before the first.
    pub attempt: u32,
    /// Why it was stopped or given up.
    pub reason: Option<String>,
    /// Why the attempt before this one failed.
    pub last_failure: Option<String>,
    /// The prompt, and what is written so far.
    pub text: String,
    /// The whole bars of the text.
    pub score: PartialScore,
    /// Pieces before it in the queue.
    pub ahead: usize,
    /// Seconds until it begins, or until it is complete, if that can be estimated.
    pub seconds: Option<f64>,
    /// How it ended, if it is finished.
    pub outcome: Option<Outcome>,
    /// Patches written, over all attempts.
    pub patches: usize,
    /// It will be taken out of the batch before the next round.
    pub stopping: bool,
    /// The server is stopping.
    pub closed: bool,
    /// When it last entered the batch, while it is there.
    entered: Option<Instant>,
    /// Time in the batch before that.
    earlier: Duration,
    /// Bars that the attempt began with.
    given_bars: usize,
    watchers: usize,
    /// When somebody last asked for it.
    last_watched: Option<Instant>,
}

impl PieceState {
    /// Seconds spent in the batch.
    pub fn written_for(&self) -> f64 {
        (self.earlier + self.entered.map_or(Duration::ZERO, |entered| entered.elapsed())).as_secs_f64()
    }

    /// Seconds that a piece being written still takes, estimated from the number of bars that it announces.
    pub fn seconds_left(&self) -> Option<f64> {
        let bars = self.score.bars.len().checked_sub(self.given_bars).filter(|bars| *bars > 0)?;
        Some(self.written_for() / bars as f64 * self.score.bars_to_come? as f64)
    }

    /// How long nobody has watched it.
    pub fn unwatched_for(&self) -> Duration {
        match self.last_watched {
            Some(at) if self.watchers == 0 => at.elapsed(),
            _ => Duration::ZERO,
        }
    }

    fn leave_batch(&mut self) {
        self.earlier += self.entered.take().map_or(Duration::ZERO, |entered| entered.elapsed());
        (self.seconds, self.stopping) = (None, false);
    }
}

impl VisitorPiece {
    pub fn new(id: String, number: usize, order: Order) -> VisitorPiece {
        let state = PieceState { last_watched: Some(Instant::now()), ..PieceState::default() };
        VisitorPiece { id, number, order, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    pub fn state(&self) -> MutexGuard<'_, PieceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes those who watch.
    pub fn change<T>(&self, change: impl FnOnce(&mut PieceState) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }

    /// Watches a piece: the watcher hears of every change.
    pub fn watch(piece: Arc<VisitorPiece>) -> PieceWatcher {
        piece.state().watchers += 1;
        let changes = piece.changed.subscribe();
        PieceWatcher { piece, changes }
    }

    /// The state, for somebody who asks for the piece.
    pub fn asked_state(&self) -> MutexGuard<'_, PieceState> {
        let mut state = self.state();
        state.last_watched = Some(Instant::now());
        state
    }

    /// The piece is in the queue again.
    pub fn requeue(&self) {
        self.change(|state| {
            (state.status, state.reason) = (PieceStatus::Queued, None);
            state.last_watched = Some(Instant::now());
        });
    }

    /// The piece moves from the queue to the batch.
    pub fn enter_batch(&self) {
        self.change(|state| {
            (state.status, state.ahead, state.seconds) = (PieceStatus::Writing, 0, None);
            state.entered = Some(Instant::now());
        });
    }

    /// An attempt begins with this text.
    pub fn begin_attempt(&self, attempt: u32, text: &str) {
        self.change(|state| {
            (state.attempt, state.text, state.score) = (attempt, text.to_owned(), PartialScore::default());
            state.score.update(text);
            state.given_bars = state.score.bars.len();
        });
    }

    /// A patch was written.
    pub fn add_text(&self, text: &str) {
        self.change(|state| {
            state.text.push_str(text);
            state.patches += 1;
            if text.contains('\n') {
                let text = std::mem::take(&mut state.text);
                state.score.update(&text);
                state.text = text;
            }
        });
    }

    pub fn stop(&self, reason: &str) {
        self.end(PieceStatus::Stopped, Some(reason.to_owned()));
    }

    pub fn fail(&self, reason: String) {
        self.end(PieceStatus::Failed, Some(reason));
    }

    /// An attempt has failed, and another follows.
    pub fn fail_attempt(&self, reason: String) {
        self.change(|state| state.last_failure = Some(reason));
    }

    pub fn finish(&self, outcome: Outcome) {
        self.change(|state| {
            let text = std::mem::take(&mut state.text);
            // A limit cuts the text off anywhere: the last bar is not whole.
            if outcome != Outcome::Stopped {
                state.score.finish(&text);
            }
            state.text = text;
            state.outcome = Some(outcome);
        });
        self.end(PieceStatus::Finished, None);
    }

    fn end(&self, status: PieceStatus, reason: Option<String>) {
        self.change(|state| {
            state.leave_batch();
            (state.status, state.reason) = (status, reason);
        });
    }
}

/// Somebody who watches a piece.
pub struct PieceWatcher {
    pub piece: Arc<VisitorPiece>,
    pub changes: watch::Receiver<()>,
}

impl Drop for PieceWatcher {
    fn drop(&mut self) {
        let mut state = self.piece.state();
        state.watchers -= 1;
        state.last_watched = Some(Instant::now());
    }
}
