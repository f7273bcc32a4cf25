//! A piece's events, as they happen (server-sent events).
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State as Shares,
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
    Shared,
    address::{Path, Query},
    pieces,
    problem::Problem,
};
use crate::piece::{Listener, Piece, State, Status};

/// What comes within this time comes together.
const TOGETHER: Duration = Duration::from_millis(40);

/// Where to go on.
#[derive(Debug, Default, Deserialize)]
pub struct After {
    /// As `Last-Event-ID`, which wins.
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
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    ))]
pub async fn events(
    Shares(shared): Shares<Shared>,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let piece = pieces::find(&shared, &id)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let place = last.or(after.as_deref()).and_then(Place::parse).unwrap_or_default();
    let follower =
        Follower { listener: Piece::listen(piece), place, pending: VecDeque::new(), told: None, done: false };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let alive = KeepAlive::new().interval(Duration::from_secs(10));
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

/// How much of a piece somebody has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Place {
    attempt: u32,
    /// Bytes of the attempt's text.
    text: usize,
    bars: usize,
}

impl Place {
    fn parse(id: &str) -> Option<Place> {
        let mut numbers = id.split('.').map(str::parse::<usize>);
        let mut next = || numbers.next()?.ok();
        Some(Place { attempt: u32::try_from(next()?).ok()?, text: next()?, bars: next()? })
    }

    fn id(self) -> String {
        format!("{}.{}.{}", self.attempt, self.text, self.bars)
    }
}

/// Tells a piece to one who listens.
struct Follower {
    listener: Listener,
    place: Place,
    pending: VecDeque<Event>,
    /// What was last said about the queue.
    told: Option<(usize, Option<f64>)>,
    done: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.done {
                return None;
            }
            self.listener.changes.borrow_and_update();
            let piece = Arc::clone(&self.listener.piece);
            self.news(&piece.state());
            if self.pending.is_empty() {
                self.listener.changes.changed().await.ok()?;
                tokio::time::sleep(TOGETHER).await;
            }
        }
    }

    fn say(&mut self, name: &str, data: &Value) {
        self.pending.push_back(Event::default().event(name).id(self.place.id()).data(data.to_string()));
    }

    /// What has happened since the last time.
    fn news(&mut self, state: &State) {
        if state.attempt > 0 && (state.attempt != self.place.attempt || state.text.len() < self.place.text) {
            self.place = Place { attempt: state.attempt, text: 0, bars: 0 };
            let text = &state.text;
            self.place.text = text.len();
            self.say("began", &json!({ "attempt": state.attempt, "text": text, "reason": state.last_failure }));
        }
        if let Some(text) = state.text.get(self.place.text..).filter(|text| !text.is_empty()) {
            self.place.text = state.text.len();
            self.say("text", &json!({ "text": text }));
        }
        let music = &state.music;
        if let Some(bars) = music.bars.get(self.place.bars..).filter(|bars| !bars.is_empty()) {
            let first = self.place.bars;
            self.place.bars = music.bars.len();
            let data = json!({
                "header": music.header, "first": first, "bars": bars, "to_come": music.to_come, "seconds": state.seconds,
            });
            self.say("music", &data);
        }
        match state.status {
            Status::Queued | Status::Writing if state.closed => {
                self.say("closed", &json!({ "reason": "the server is stopping" }));
            }
            Status::Queued if self.told != Some((state.ahead, state.seconds)) => {
                self.told = Some((state.ahead, state.seconds));
                self.say("queued", &json!({ "ahead": state.ahead, "seconds": state.seconds }));
            }
            Status::Queued | Status::Writing => return,
            Status::Stopped => self.say("stopped", &json!({ "reason": state.reason })),
            Status::Failed => self.say("failed", &json!({ "reason": state.reason })),
            Status::Finished => {
                let data = json!({
                    "outcome": state.outcome.map(pieces::outcome), "bars": music.bars.len(), "patches": state.patches,
                    "written_for": state.written_for(),
                });
                self.say("finished", &data);
            }
        }
        self.done = state.closed || !matches!(state.status, Status::Queued | Status::Writing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = Place { attempt: 2, text: 310, bars: 4 };
        assert_eq!(Place::parse(&place.id()), Some(place));
        for wrong in ["", "1.2", "a.b.c", "-1.0.0", "99999999999.0.0"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }
}
