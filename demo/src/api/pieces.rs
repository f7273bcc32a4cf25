//! Pieces: asked for, looked at, stopped, gone on with.
use std::sync::Arc;

use ::model::{
    generate::{Order, Outcome, Start},
    sampling::Sampling,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use rand::Rng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Shared,
    address::Path,
    body,
    problem::Problem,
    scores::{self, Form, Midi, Times},
};
use crate::{
    choices,
    desk::Full,
    piece::{self, Piece, Status},
    upload,
};

/// Lines of a prompt, and characters of each.
const MOST_LINES: usize = 20;
const LONGEST_LINE: usize = 200;
/// The largest whole number that JavaScript keeps.
const LARGEST_SEED: u64 = (1 << 53) - 1;

/// A piece to write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Period, composer and instrumentation, or for other weights any lines of one's own; none is a start from nothing.
    #[serde(default)]
    prompt: Vec<String>,
    /// A score to go on from, as POST /api/scores gives it back.
    music: Option<String>,
    /// Up to 2^53 - 1; drawn where not given.
    seed: Option<u64>,
    /// Draw from the k likeliest characters; 0: from all.
    top_k: Option<u32>,
    /// Draw from the likeliest characters that together reach this probability: above 0, at most 1.
    top_p: Option<f64>,
    /// Above 1 evens the probabilities out, below 1 sharpens them: 0.05 to 5.
    temperature: Option<f64>,
    /// The longest that the piece may get, in patches of 16 characters.
    max_patches: Option<usize>,
}

/// Everything that a piece depends on but the weights.
#[derive(Debug, Serialize, ToSchema)]
pub struct Settings {
    prompt: Vec<String>,
    music: Option<String>,
    seed: u64,
    top_k: i64,
    top_p: f64,
    temperature: f64,
    max_patches: Option<usize>,
}

/// A piece, as far as it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shown {
    /// Not to be guessed: who has it may stop the piece.
    id: String,
    status: Status,
    /// Pieces before it in the queue.
    ahead: usize,
    /// Seconds until it begins or is complete, where that can be told.
    seconds: Option<f64>,
    /// Attempts at it so far.
    attempt: u32,
    /// Why it was stopped or given up.
    reason: Option<String>,
    /// Of a finished piece: `ended` by the network, `full` (nothing to go on from), or `limit`.
    outcome: Option<&'static str>,
    settings: Settings,
    /// What the network has written, prompt included.
    text: String,
    /// Interleaved ABC of the whole bars, with their rests: for reading and converting.
    abc: String,
    bars: usize,
    patches: usize,
    /// Seconds spent on writing it.
    written_for: f64,
}

/// The name of an outcome.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ended => "ended",
        Outcome::Full => "full",
        Outcome::Stopped => "limit",
    }
}

fn shown(piece: &Piece, state: &piece::State) -> Shown {
    let order = &piece.order;
    let prompt = order.start.prompt.iter().map(|line| line.trim_start_matches('%').trim_end().to_owned()).collect();
    let Sampling { top_k, top_p, temperature } = order.sampling;
    let music = order.start.music.clone();
    Shown {
        id: piece.id.clone(),
        status: state.status,
        ahead: state.ahead,
        seconds: state.seconds,
        attempt: state.attempt,
        reason: state.reason.clone(),
        outcome: state.outcome.map(outcome),
        settings: Settings {
            prompt,
            music,
            seed: order.seed,
            top_k,
            top_p,
            temperature,
            max_patches: order.max_patches,
        },
        text: state.text.clone(),
        abc: if state.music.bars.is_empty() { String::new() } else { state.music.abc() },
        bars: state.music.bars.len(),
        patches: state.patches,
        written_for: state.written_for(),
    }
}

/// Asks for a piece.
#[utoipa::path(post, path = "/api/pieces", request_body = Wanted, responses(
    (status = 201, body = Shown, description = "It waits, or is being written already"),
    (status = 400, body = Problem), (status = 403, body = Problem), (status = 408, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem),
    (status = 422, body = Problem, description = "The music to go on from is wrong"),
    (status = 503, body = Problem, description = "The queue is full; try again after Retry-After seconds",
        headers(("Retry-After" = u32))),
))]
pub async fn add(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let wanted: Wanted = body::json(&headers, body, shared.desk.limits()).await?;
    let order = order(&shared, wanted).await?;
    let piece = shared.desk.add(order).map_err(full)?;
    let shown = shown(&piece, &piece.state());
    let place = format!("/api/pieces/{}", piece.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(shown)).into_response())
}

pub fn full(full: Full) -> Problem {
    match full {
        Full::Queue(waiting) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{waiting} pieces are waiting already; no more are taken on"),
        )
        .hint("try again in a minute"),
        Full::Closed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
    }
}

async fn order(shared: &Shared, wanted: Wanted) -> Result<Order, Problem> {
    let defaults = Sampling::default();
    let sampling = Sampling {
        top_k: wanted.top_k.map_or(defaults.top_k, i64::from),
        top_p: wanted.top_p.unwrap_or(defaults.top_p),
        temperature: wanted.temperature.unwrap_or(defaults.temperature),
    };
    if !(0.05..=5.0).contains(&sampling.temperature) {
        return Err(Problem::wrong(format!("temperature is {}: it must be 0.05 to 5", sampling.temperature)));
    }
    sampling.check().map_err(|error| Problem::wrong(error.to_string()))?;
    let seed = wanted.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    if seed > LARGEST_SEED {
        return Err(Problem::wrong(format!("seed is {seed}: the largest is {LARGEST_SEED}")));
    }
    if wanted.max_patches == Some(0) {
        return Err(Problem::wrong("max_patches is counted from 1"));
    }
    let limit = shared.desk.limits().patches;
    let max_patches =
        wanted.max_patches.map_or(limit, |patches| Some(limit.map_or(patches, |limit| limit.min(patches))));
    let music = match wanted.music {
        Some(music) => Some(scores::blocking(shared, move || upload::read(music.as_bytes(), "")).await?.music),
        None => None,
    };
    Ok(Order { seed, sampling, start: Start { prompt: prompt(shared, wanted.prompt)?, music }, max_patches })
}

/// The lines that a piece begins with.
fn prompt(shared: &Shared, lines: Vec<String>) -> Result<Vec<String>, Problem> {
    if lines.len() > MOST_LINES || lines.iter().any(|line| line.len() > LONGEST_LINE) {
        let message = format!("a prompt has at most {MOST_LINES} lines of {LONGEST_LINE} characters");
        return Err(Problem::wrong(message));
    }
    if let Some(at) = lines.iter().position(|line| !line.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        let message = format!("line {} of the prompt has a character that is not printable ASCII", at + 1);
        return Err(Problem::wrong(message).hint("the network knows letters without accents: Faure, Dvorak"));
    }
    let periods = &shared.model.periods;
    if !lines.is_empty() && !periods.is_empty() && !choices::has(periods, &lines) {
        let error = ::model::prompts::prompt_lines(&lines.join("_")).err();
        let hint = error.and_then(|error| error.hint()).unwrap_or_else(|| "see /api/model".to_owned());
        return Err(Problem::wrong(format!("{:?} is none of the choices", lines.join(", "))).hint(hint));
    }
    Ok(lines.iter().map(|line| format!("%{line}\n")).collect())
}

pub fn find(shared: &Shared, id: &str) -> Result<Arc<Piece>, Problem> {
    shared.desk.piece(id).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "there is no such piece, or no longer")
            .hint("the same settings and seed write it again")
    })
}

/// A piece as far as it is.
#[utoipa::path(get, path = "/api/pieces/{id}", params(("id" = String, Path)),
    responses(
        (status = 200, body = Shown),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    ))]
pub async fn piece(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Shown>, Problem> {
    let piece = find(&shared, &id)?;
    let state = piece.look();
    Ok(Json(shown(&piece, &state)))
}

/// Stops a piece. What is written stays, and it can go on from there.
#[utoipa::path(post, path = "/api/pieces/{id}/stop", params(("id" = String, Path)), responses(
    (status = 202, body = Shown, description = "It stops when the patch being written is done"),
    (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "It is not being written"),
))]
pub async fn stop(State(shared): State<Shared>, Path(id): Path<String>) -> Result<(StatusCode, Json<Shown>), Problem> {
    let piece = find(&shared, &id)?;
    if !shared.desk.stop(&piece, "stopped by its visitor") {
        return Err(Problem::new(StatusCode::CONFLICT, "the piece is not being written"));
    }
    let state = piece.look();
    Ok((StatusCode::ACCEPTED, Json(shown(&piece, &state))))
}

/// Goes on with a stopped piece, to the same end as without the stop.
#[utoipa::path(post, path = "/api/pieces/{id}/resume", params(("id" = String, Path)), responses(
    (status = 202, body = Shown),
    (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "It is not stopped"),
    (status = 503, body = Problem, description = "The queue is full; try again after Retry-After seconds",
        headers(("Retry-After" = u32))),
))]
pub async fn resume(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    let piece = find(&shared, &id)?;
    if !shared.desk.resume(&piece).map_err(full)? {
        return Err(Problem::new(StatusCode::CONFLICT, "the piece is not stopped"));
    }
    let state = piece.look();
    Ok((StatusCode::ACCEPTED, Json(shown(&piece, &state))))
}

/// The whole bars of a piece as a file, `abc`, `musicxml` or `midi`; or `times`, when each of them is played.
#[utoipa::path(get, path = "/api/pieces/{id}/{form}", params(("id" = String, Path), ("form" = Form, Path)), responses(
    (status = 200, content(
        (String = "text/vnd.abc"), (String = "application/vnd.recordare.musicxml+xml"), (Midi = "audio/midi"),
        (Times = "application/json"),
    )),
    (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "It has no whole bar yet"),
    (status = 422, body = Problem, description = "There is not a note in what is written, or it is too large"),
    (status = 503, body = Problem, description = "Too much is being sent; try again after Retry-After seconds",
        headers(("Retry-After" = u32))),
))]
pub async fn score(
    State(shared): State<Shared>,
    Path((id, form)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let piece = find(&shared, &id)?;
    let form = Form::named(&form)?;
    let abc = {
        let state = piece.look();
        if state.music.bars.is_empty() {
            return Err(Problem::new(StatusCode::CONFLICT, "the piece has no whole bar yet"));
        }
        state.music.abc()
    };
    let name = format!("notagen-{}.{}", piece.order.seed, form.end());
    scores::converted(&shared, abc, form, &name).await
}
