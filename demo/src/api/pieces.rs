//! Pieces: ask for one, look at it, stop it, resume it, download it.
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
    address::Path,
    body,
    scores::{self, Midi, ScoreFormat, ScoreTimes},
    shared::Shared,
};
use crate::{
    piece::{PieceState, PieceStatus, VisitorPiece},
    problem::ApiProblem,
    prompt_choices,
    queue::QueueError,
    upload,
};

/// The most lines of a prompt, and the most characters of each.
const MOST_LINES: usize = 20;
const LONGEST_LINE: usize = 200;
/// The largest whole number that JavaScript represents exactly.
const LARGEST_SEED: u64 = (1 << 53) - 1;

/// A piece to write.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Wanted)]
#[serde(deny_unknown_fields)]
pub struct PieceRequest {
    /// Period, composer and instrumentation; for other weights any lines. Without lines the piece starts from nothing.
    #[serde(default)]
    prompt: Vec<String>,
    /// A score to continue, as POST /api/scores returns it.
    music: Option<String>,
    /// 0 to 2^53 - 1; random if it is not given.
    seed: Option<u64>,
    /// Sample from the k most likely characters; 0: from all.
    top_k: Option<u32>,
    /// Sample from the most likely characters that together reach this probability: above 0, at most 1.
    top_p: Option<f64>,
    /// Above 1 the output is more varied, below 1 less: 0.05 to 5.
    temperature: Option<f64>,
    /// The longest piece, in patches of 16 characters.
    max_patches: Option<usize>,
}

/// Everything that a piece depends on except the weights.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settings)]
pub struct PieceSettings {
    prompt: Vec<String>,
    music: Option<String>,
    seed: u64,
    top_k: i64,
    top_p: f64,
    temperature: f64,
    max_patches: Option<usize>,
}

/// A piece, as far as it is written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shown)]
pub struct PieceView {
    /// Random and secret: whoever has it may stop the piece.
    id: String,
    status: PieceStatus,
    /// Pieces before it in the queue.
    ahead: usize,
    /// Seconds until it begins or is complete, if that can be estimated.
    seconds: Option<f64>,
    /// Attempts at it so far.
    attempt: u32,
    /// Why it was stopped or given up.
    reason: Option<String>,
    /// How a finished piece ended: `ended` by the network, `full` (the context cannot move on), or `limit`.
    outcome: Option<&'static str>,
    settings: PieceSettings,
    /// The prompt, and what the network has written.
    text: String,
    /// The whole bars as interleaved ABC, with their rests: for other programs.
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

fn shown(piece: &VisitorPiece, state: &PieceState) -> PieceView {
    let order = &piece.order;
    let prompt = order.start.prompt.iter().map(|line| line.trim_start_matches('%').trim_end().to_owned()).collect();
    let Sampling { top_k, top_p, temperature } = order.sampling;
    let music = order.start.music.clone();
    PieceView {
        id: piece.id.clone(),
        status: state.status,
        ahead: state.ahead,
        seconds: state.seconds,
        attempt: state.attempt,
        reason: state.reason.clone(),
        outcome: state.outcome.map(outcome),
        settings: PieceSettings {
            prompt,
            music,
            seed: order.seed,
            top_k,
            top_p,
            temperature,
            max_patches: order.max_patches,
        },
        text: state.text.clone(),
        abc: if state.score.bars.is_empty() { String::new() } else { state.score.abc() },
        bars: state.score.bars.len(),
        patches: state.patches,
        written_for: state.written_for(),
    }
}

/// Asks for a piece.
#[utoipa::path(post, path = "/api/pieces", request_body = PieceRequest, responses(
    (status = 201, body = PieceView, description = "It waits, or is being written already"),
    (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 408, body = ApiProblem),
    (status = 413, body = ApiProblem), (status = 415, body = ApiProblem),
    (status = 422, body = ApiProblem, description = "The music to go on from is wrong"),
    (status = 503, body = ApiProblem, description = "The queue is full; try again after Retry-After seconds",
        headers(("Retry-After" = u32))),
))]
pub async fn add(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, ApiProblem> {
    let wanted: PieceRequest = body::json(&headers, body, shared.queue.limits()).await?;
    let order = order(&shared, wanted).await?;
    let piece = shared.queue.add(order).map_err(refusal)?;
    let shown = shown(&piece, &piece.state());
    let place = format!("/api/pieces/{}", piece.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(shown)).into_response())
}

/// The answer to a piece that is not put into the queue.
fn refusal(error: QueueError) -> ApiProblem {
    match error {
        QueueError::Full(waiting) => ApiProblem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{waiting} pieces are waiting already; no more are taken on"),
        )
        .hint("try again in a minute"),
        QueueError::Closed => ApiProblem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
    }
}

async fn order(shared: &Shared, wanted: PieceRequest) -> Result<Order, ApiProblem> {
    let defaults = Sampling::default();
    let sampling = Sampling {
        top_k: wanted.top_k.map_or(defaults.top_k, i64::from),
        top_p: wanted.top_p.unwrap_or(defaults.top_p),
        temperature: wanted.temperature.unwrap_or(defaults.temperature),
    };
    if !(0.05..=5.0).contains(&sampling.temperature) {
        return Err(ApiProblem::bad_request(format!("temperature is {}: it must be 0.05 to 5", sampling.temperature)));
    }
    sampling.check().map_err(|error| ApiProblem::bad_request(error.to_string()))?;
    let seed = wanted.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    if seed > LARGEST_SEED {
        return Err(ApiProblem::bad_request(format!("seed is {seed}: the largest is {LARGEST_SEED}")));
    }
    if wanted.max_patches == Some(0) {
        return Err(ApiProblem::bad_request("max_patches is counted from 1"));
    }
    let limit = shared.queue.limits().patches;
    let max_patches =
        wanted.max_patches.map_or(limit, |patches| Some(limit.map_or(patches, |limit| limit.min(patches))));
    let music = match wanted.music {
        Some(music) => Some(scores::blocking(shared, move || upload::read(music.as_bytes(), "")).await?.music),
        None => None,
    };
    Ok(Order { seed, sampling, start: Start { prompt: prompt(shared, wanted.prompt)?, music }, max_patches })
}

/// The lines that a piece begins with.
fn prompt(shared: &Shared, lines: Vec<String>) -> Result<Vec<String>, ApiProblem> {
    if lines.len() > MOST_LINES || lines.iter().any(|line| line.len() > LONGEST_LINE) {
        let message = format!("a prompt has at most {MOST_LINES} lines of {LONGEST_LINE} characters");
        return Err(ApiProblem::bad_request(message));
    }
    if let Some(at) = lines.iter().position(|line| !line.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        let message = format!("line {} of the prompt has a character that is not printable ASCII", at + 1);
        return Err(ApiProblem::bad_request(message).hint("the network knows letters without accents: Faure, Dvorak"));
    }
    let periods = &shared.model.periods;
    if !lines.is_empty() && !periods.is_empty() && !prompt_choices::contains(periods, &lines) {
        let error = ::model::prompts::prompt_lines(&lines.join("_")).err();
        let hint = error.and_then(|error| error.hint()).unwrap_or_else(|| "see /api/model".to_owned());
        return Err(ApiProblem::bad_request(format!("{:?} is none of the choices", lines.join(", "))).hint(hint));
    }
    Ok(lines.iter().map(|line| format!("%{line}\n")).collect())
}

pub fn find(shared: &Shared, id: &str) -> Result<Arc<VisitorPiece>, ApiProblem> {
    shared.queue.find(id).ok_or_else(|| {
        ApiProblem::new(StatusCode::NOT_FOUND, "there is no such piece, or no longer")
            .hint("the same settings and seed write it again")
    })
}

/// Returns a piece, as far as it is written.
#[utoipa::path(get, path = "/api/pieces/{id}", params(("id" = String, Path)),
    responses(
        (status = 200, body = PieceView),
        (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 404, body = ApiProblem),
    ))]
pub async fn piece(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<PieceView>, ApiProblem> {
    let piece = find(&shared, &id)?;
    let state = piece.asked_state();
    Ok(Json(shown(&piece, &state)))
}

/// Stops a piece. It keeps what is written, and can be resumed.
#[utoipa::path(post, path = "/api/pieces/{id}/stop", params(("id" = String, Path)), responses(
    (status = 202, body = PieceView, description = "It stops when the patch being written is done"),
    (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 404, body = ApiProblem),
    (status = 409, body = ApiProblem, description = "It is not being written"),
))]
pub async fn stop(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<PieceView>), ApiProblem> {
    let piece = find(&shared, &id)?;
    if !shared.queue.stop(&piece, "stopped by its visitor") {
        return Err(ApiProblem::new(StatusCode::CONFLICT, "the piece is not being written"));
    }
    let state = piece.asked_state();
    Ok((StatusCode::ACCEPTED, Json(shown(&piece, &state))))
}

/// Resumes a stopped piece. The result is the same as without the stop.
#[utoipa::path(post, path = "/api/pieces/{id}/resume", params(("id" = String, Path)), responses(
    (status = 202, body = PieceView),
    (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 404, body = ApiProblem),
    (status = 409, body = ApiProblem, description = "It is not stopped"),
    (status = 503, body = ApiProblem, description = "The queue is full; try again after Retry-After seconds",
        headers(("Retry-After" = u32))),
))]
pub async fn resume(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<PieceView>), ApiProblem> {
    let piece = find(&shared, &id)?;
    if !shared.queue.resume(&piece).map_err(refusal)? {
        return Err(ApiProblem::new(StatusCode::CONFLICT, "the piece is not stopped"));
    }
    let state = piece.asked_state();
    Ok((StatusCode::ACCEPTED, Json(shown(&piece, &state))))
}

/// The whole bars of a piece as a file, `abc`, `musicxml` or `midi`; or `times`, when each of them is played.
#[utoipa::path(get, path = "/api/pieces/{id}/{form}", params(("id" = String, Path), ("form" = ScoreFormat, Path)), responses(
    (status = 200, content(
        (String = "text/vnd.abc"), (String = "application/vnd.recordare.musicxml+xml"), (Midi = "audio/midi"),
        (ScoreTimes = "application/json"),
    )),
    (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 404, body = ApiProblem),
    (status = 409, body = ApiProblem, description = "It has no whole bar yet"),
    (status = 422, body = ApiProblem, description = "There is not a note in what is written, or it is too large"),
    (status = 503, body = ApiProblem, description = "Too much is being sent; try again after Retry-After seconds",
        headers(("Retry-After" = u32))),
))]
pub async fn score(
    State(shared): State<Shared>,
    Path((id, form)): Path<(String, String)>,
) -> Result<Response, ApiProblem> {
    let piece = find(&shared, &id)?;
    let form = ScoreFormat::named(&form)?;
    let abc = {
        let state = piece.asked_state();
        if state.score.bars.is_empty() {
            return Err(ApiProblem::new(StatusCode::CONFLICT, "the piece has no whole bar yet"));
        }
        state.score.abc()
    };
    let name = format!("notagen-{}.{}", piece.order.seed, form.file_type().0);
    scores::converted(&shared, abc, form, &name).await
}
