//! The events of a piece, sent as they happen (server-sent events).
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    address::{Path, Query},
    pieces,
    shared::Shared,
};
use crate::{
    piece::{PieceState, PieceStatus, PieceWatcher, VisitorPiece},
    problem::ApiProblem,
};

/// Changes within this time are sent together.
const MERGE_INTERVAL: Duration = Duration::from_millis(40);

/// Where to continue.
#[derive(Debug, Default, Deserialize)]
pub struct AfterQuery {
    /// Like `Last-Event-ID`, which takes precedence.
    after: Option<String>,
}

/// The events of a piece, from its beginning on or from `Last-Event-ID` on: a stream of server-sent events, each with
/// JSON as its data.
///
/// `queued` {ahead, seconds}; `began` {attempt, text, reason}: a new attempt, the text of earlier ones is void; `text`
/// {text}: what was added; `music` {header, first, bars, to_come, seconds}: whole bars of all voices, counted from 0;
/// and at the end one of `finished` {outcome, bars, patches, written_for}, `stopped` {reason}, `failed` {reason} and
/// `closed`, when the server stops.
#[utoipa::path(get, path = "/api/pieces/{id}/events",
    params(
        ("id" = String, Path),
        ("after" = Option<String>, Query, description = "the id of the last event seen, as Last-Event-ID"),
        ("Last-Event-ID" = Option<String>, Header),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 404, body = ApiProblem),
    ))]
pub async fn events(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(AfterQuery { after }): Query<AfterQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let piece = pieces::find(&shared, &id)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let position = last.or(after.as_deref()).and_then(StreamPosition::parse).unwrap_or_default();
    let stream = PieceStream {
        watcher: VisitorPiece::watch(piece),
        position,
        pending: VecDeque::new(),
        sent_wait: None,
        done: false,
    };
    let events = stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let alive = KeepAlive::new().interval(Duration::from_secs(10));
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

/// How much of a piece a client has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct StreamPosition {
    attempt: u32,
    /// Bytes of the attempt's text.
    text: usize,
    bars: usize,
}

impl StreamPosition {
    fn parse(id: &str) -> Option<StreamPosition> {
        let mut numbers = id.split('.').map(str::parse::<usize>);
        let mut next = || numbers.next()?.ok();
        Some(StreamPosition { attempt: u32::try_from(next()?).ok()?, text: next()?, bars: next()? })
    }

    fn id(self) -> String {
        format!("{}.{}.{}", self.attempt, self.text, self.bars)
    }
}

/// Sends a piece to one client.
struct PieceStream {
    watcher: PieceWatcher,
    position: StreamPosition,
    pending: VecDeque<Event>,
    /// The place in the queue and the waiting time last sent.
    sent_wait: Option<(usize, Option<f64>)>,
    done: bool,
}

impl PieceStream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.done {
                return None;
            }
            self.watcher.changes.borrow_and_update();
            let piece = Arc::clone(&self.watcher.piece);
            self.add_changes(&piece.state());
            if self.pending.is_empty() {
                self.watcher.changes.changed().await.ok()?;
                tokio::time::sleep(MERGE_INTERVAL).await;
            }
        }
    }

    fn send(&mut self, name: &str, data: &Value) {
        self.pending.push_back(Event::default().event(name).id(self.position.id()).data(data.to_string()));
    }

    /// Queues the events for what has changed.
    fn add_changes(&mut self, state: &PieceState) {
        if state.attempt > 0 && (state.attempt != self.position.attempt || state.text.len() < self.position.text) {
            self.position = StreamPosition { attempt: state.attempt, text: 0, bars: 0 };
            let text = &state.text;
            self.position.text = text.len();
            self.send("began", &json!({ "attempt": state.attempt, "text": text, "reason": state.last_failure }));
        }
        if let Some(text) = state.text.get(self.position.text..).filter(|text| !text.is_empty()) {
            self.position.text = state.text.len();
            self.send("text", &json!({ "text": text }));
        }
        let score = &state.score;
        if let Some(bars) = score.bars.get(self.position.bars..).filter(|bars| !bars.is_empty()) {
            let first = self.position.bars;
            self.position.bars = score.bars.len();
            let data = json!({
                "header": score.header, "first": first, "bars": bars, "to_come": score.bars_to_come, "seconds": state.seconds,
            });
            self.send("music", &data);
        }
        match state.status {
            PieceStatus::Queued | PieceStatus::Writing if state.closed => {
                self.send("closed", &json!({ "reason": "the server is stopping" }));
            }
            PieceStatus::Queued if self.sent_wait != Some((state.ahead, state.seconds)) => {
                self.sent_wait = Some((state.ahead, state.seconds));
                self.send("queued", &json!({ "ahead": state.ahead, "seconds": state.seconds }));
            }
            PieceStatus::Queued | PieceStatus::Writing => return,
            PieceStatus::Stopped => self.send("stopped", &json!({ "reason": state.reason })),
            PieceStatus::Failed => self.send("failed", &json!({ "reason": state.reason })),
            PieceStatus::Finished => {
                let data = json!({
                    "outcome": state.outcome.map(pieces::outcome), "bars": score.bars.len(), "patches": state.patches,
                    "written_for": state.written_for(),
                });
                self.send("finished", &data);
            }
        }
        self.done = state.closed || !matches!(state.status, PieceStatus::Queued | PieceStatus::Writing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = StreamPosition { attempt: 2, text: 310, bars: 4 };
        assert_eq!(StreamPosition::parse(&position.id()), Some(position));
        for wrong in ["", "1.2", "a.b.c", "-1.0.0", "99999999999.0.0"] {
            assert_eq!(StreamPosition::parse(wrong), None, "{wrong}");
        }
    }
}
