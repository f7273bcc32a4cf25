//! Scores: uploads to continue, and conversions of pieces.
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use notation::export;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::{address::Query, body, shared::Shared};
use crate::{
    problem::ApiProblem,
    upload::{self, Upload},
};

/// The longest file name, in bytes.
const LONGEST_NAME: usize = 200;
/// The largest converted score that is sent, in bytes.
const LARGEST: usize = 32 << 20;

/// What a score is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(as = Form, rename_all = "lowercase")]
pub enum ScoreFormat {
    /// Interleaved ABC.
    Abc,
    /// MusicXML 4.0.
    Musicxml,
    /// A Standard MIDI File, with repeats played out.
    Midi,
    /// When each bar is played, to follow the music.
    Times,
}

impl ScoreFormat {
    pub fn named(name: &str) -> Result<ScoreFormat, ApiProblem> {
        match name {
            "abc" => Ok(ScoreFormat::Abc),
            "musicxml" => Ok(ScoreFormat::Musicxml),
            "midi" => Ok(ScoreFormat::Midi),
            "times" => Ok(ScoreFormat::Times),
            _ => Err(ApiProblem::new(StatusCode::NOT_FOUND, "a score comes as abc, musicxml, midi or times")),
        }
    }

    /// The extension of a file, and its content type.
    pub fn file_type(self) -> (&'static str, &'static str) {
        match self {
            ScoreFormat::Abc => ("abc", "text/vnd.abc; charset=utf-8"),
            ScoreFormat::Musicxml => ("musicxml", "application/vnd.recordare.musicxml+xml"),
            ScoreFormat::Midi => ("mid", "audio/midi"),
            ScoreFormat::Times => ("json", "application/json"),
        }
    }
}

/// A Standard MIDI File.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)] // only in the document
pub struct Midi(Vec<u8>);

/// When the bars of a piece are played.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Times)]
pub struct ScoreTimes {
    /// The bars in the order they are played, with repeats.
    bars: Vec<PlayedBar>,
    /// When the last bar ends, in seconds.
    seconds: f64,
}

/// When a bar is played.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bar)]
struct PlayedBar {
    /// The bar in the score, counted from 0.
    bar: usize,
    /// When it begins, in seconds.
    seconds: f64,
}

/// Runs slow work in a thread of its own, a few at once.
pub async fn blocking<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> Result<T, ApiProblem> + Send + 'static,
) -> Result<T, ApiProblem> {
    let fault = || {
        ApiProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "the conversion broke off: a fault of notagen-train")
            .hint("please report it with the score")
    };
    let permit = shared.conversions.clone().acquire_owned().await.map_err(|_| fault())?;
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    work.await.unwrap_or_else(|_| Err(fault()))
}

/// Answers with a piece as a file.
pub async fn converted(shared: &Shared, abc: String, form: ScoreFormat, name: &str) -> Result<Response, ApiProblem> {
    let bytes = blocking(shared, move || convert_to(&abc, form)).await?;
    if bytes.len() > LARGEST {
        let message = format!("the score is too large: more than {} MiB as {}", LARGEST >> 20, form.file_type().0);
        return Err(ApiProblem::bad_score(message).hint("a part of it will do"));
    }
    let permits = shared.converted.clone().try_acquire_many_owned(1 + (bytes.len() >> 20) as u32).map_err(|_| {
        ApiProblem::new(StatusCode::SERVICE_UNAVAILABLE, "too many scores are being sent to others")
            .hint("try again in a minute")
    })?;
    let attached = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, form.file_type().1.to_owned()), (header::CONTENT_DISPOSITION, attached)];
    Ok((headers, Bytes::from_owner(Sent { bytes, _permits: permits })).into_response())
}

/// A file that is being sent. It keeps its permits until the last byte is sent.
struct Sent {
    bytes: Vec<u8>,
    _permits: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn convert_to(abc: &str, form: ScoreFormat) -> Result<Vec<u8>, ApiProblem> {
    let wrong = |error: notation::Error| upload::problem(&error, Some(abc));
    Ok(match form {
        ScoreFormat::Abc => abc.as_bytes().to_vec(),
        ScoreFormat::Musicxml => export::to_musicxml(abc, "").map_err(wrong)?.output.into_bytes(),
        ScoreFormat::Midi => export::to_midi(abc, "").map_err(wrong)?.output,
        ScoreFormat::Times => {
            let times = export::times(abc, "").map_err(wrong)?;
            let bars = times.bars.into_iter().map(|(bar, seconds)| PlayedBar { bar, seconds }).collect();
            serde_json::to_vec(&ScoreTimes { bars, seconds: times.seconds })
                .map_err(|error| ApiProblem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        }
    })
}

/// The name of an uploaded file.
#[derive(Debug, Deserialize, IntoParams)]
pub struct NameQuery {
    /// The name alone, without folders.
    #[serde(default)]
    name: String,
}

/// Checks a score to continue, MusicXML (compressed or not) or ABC, and returns it in the form the network reads.
#[utoipa::path(post, path = "/api/scores", params(("name" = Option<String>, Query, description = "the file's name, for messages")),
    request_body(content_type = "application/octet-stream", content = String), responses(
        (status = 200, body = Upload),
        (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 408, body = ApiProblem),
        (status = 413, body = ApiProblem),
        (status = 422, body = ApiProblem, description = "The score is wrong, and where; or it is too long"),
    ))]
pub async fn upload(
    State(shared): State<Shared>,
    Query(NameQuery { name }): Query<NameQuery>,
    body: Body,
) -> Result<Json<Upload>, ApiProblem> {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if name.len() > LONGEST_NAME || name.contains(odd) || matches!(name.as_str(), "." | "..") {
        return Err(ApiProblem::bad_request("that is not the name of a file").hint("the name alone, without folders"));
    }
    let bytes = body::bytes(body, shared.queue.limits()).await?;
    blocking(&shared, move || upload::read(&bytes, &name)).await.map(Json)
}

/// What to convert to.
#[derive(Debug, Deserialize)]
pub struct ToQuery {
    to: String,
}

/// Converts a piece of ABC.
#[utoipa::path(post, path = "/api/convert", params(("to" = ScoreFormat, Query)),
    request_body(content_type = "text/vnd.abc", content = String), responses(
        (status = 200, content(
            (String = "text/vnd.abc"), (String = "application/vnd.recordare.musicxml+xml"), (Midi = "audio/midi"),
            (ScoreTimes = "application/json"),
        )),
        (status = 400, body = ApiProblem), (status = 403, body = ApiProblem), (status = 404, body = ApiProblem),
        (status = 408, body = ApiProblem), (status = 413, body = ApiProblem),
        (status = 422, body = ApiProblem, description = "The piece is no ABC, and where; or it is too long"),
        (status = 503, body = ApiProblem, description = "Too much is being sent; try again after Retry-After seconds",
            headers(("Retry-After" = u32))),
    ))]
pub async fn convert(
    State(shared): State<Shared>,
    Query(ToQuery { to }): Query<ToQuery>,
    body: Body,
) -> Result<Response, ApiProblem> {
    let form = ScoreFormat::named(&to)?;
    let bytes = body::bytes(body, shared.queue.limits()).await?;
    let abc = String::from_utf8(bytes).map_err(|_| ApiProblem::bad_request("the piece is not UTF-8"))?;
    let abc = blocking(&shared, move || upload::parse(&abc).map(|_| abc)).await?;
    converted(&shared, abc, form, &format!("notagen.{}", form.file_type().0)).await
}
