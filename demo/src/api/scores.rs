//! Scores: uploads to go on from, and conversions of what was written.
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

use super::{Shared, address::Query, body, problem::Problem};
use crate::upload::{self, Upload};

/// The longest name of a file.
const LONGEST_NAME: usize = 200;
/// Bytes of the largest score that is given out.
const LARGEST: usize = 32 << 20;

/// What a score is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Form {
    /// Interleaved ABC, as it is.
    Abc,
    /// MusicXML 4.0.
    Musicxml,
    /// A Standard MIDI File, repeats played out.
    Midi,
    /// When each bar is played, for following the music.
    Times,
}

impl Form {
    pub fn named(name: &str) -> Result<Form, Problem> {
        match name {
            "abc" => Ok(Form::Abc),
            "musicxml" => Ok(Form::Musicxml),
            "midi" => Ok(Form::Midi),
            "times" => Ok(Form::Times),
            _ => Err(Problem::new(StatusCode::NOT_FOUND, "a score comes as abc, musicxml, midi or times")),
        }
    }

    pub fn end(self) -> &'static str {
        match self {
            Form::Abc => "abc",
            Form::Musicxml => "musicxml",
            Form::Midi => "mid",
            Form::Times => "json",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Form::Abc => "text/vnd.abc; charset=utf-8",
            Form::Musicxml => "application/vnd.recordare.musicxml+xml",
            Form::Midi => "audio/midi",
            Form::Times => "application/json",
        }
    }
}

/// A Standard MIDI File.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)] // described alone
pub struct Midi(Vec<u8>);

/// When the bars of a piece are played.
#[derive(Debug, Serialize, ToSchema)]
pub struct Times {
    /// In the order in which they are played, repeats and all.
    bars: Vec<Bar>,
    /// Seconds in all.
    seconds: f64,
}

/// A bar that is played.
#[derive(Debug, Serialize, ToSchema)]
struct Bar {
    /// Counted from 0 in the score.
    bar: usize,
    /// From the beginning on.
    seconds: f64,
}

/// Work that takes its time, in a thread of its own; not much of it at once.
pub async fn blocking<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let fault = || {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the conversion broke off: a fault of notagen-train")
            .hint("please report it with the score")
    };
    let permit = shared.conversions.clone().acquire_owned().await.map_err(|_| fault())?;
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    work.await.unwrap_or_else(|_| Err(fault()))
}

/// A piece as a file.
pub async fn converted(shared: &Shared, abc: String, form: Form, name: &str) -> Result<Response, Problem> {
    let bytes = blocking(shared, move || convert_to(&abc, form)).await?;
    if bytes.len() > LARGEST {
        let message = format!("the score is too large: more than {} MiB as {}", LARGEST >> 20, form.end());
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message).hint("a part of it will do"));
    }
    let room = shared.answers.clone().try_acquire_many_owned(1 + (bytes.len() >> 20) as u32).map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many scores are being sent to others")
            .hint("try again in a minute")
    })?;
    let attached = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, form.kind().to_owned()), (header::CONTENT_DISPOSITION, attached)];
    Ok((headers, Bytes::from_owner(Sent { bytes, _room: room })).into_response())
}

/// What is being sent: it keeps its room until its last byte is.
struct Sent {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn convert_to(abc: &str, form: Form) -> Result<Vec<u8>, Problem> {
    let wrong = |error: notation::Error| upload::problem(&error, Some(abc));
    Ok(match form {
        Form::Abc => abc.as_bytes().to_vec(),
        Form::Musicxml => export::to_musicxml(abc, "").map_err(wrong)?.output.into_bytes(),
        Form::Midi => export::to_midi(abc, "").map_err(wrong)?.output,
        Form::Times => {
            let times = export::times(abc, "").map_err(wrong)?;
            let bars = times.bars.into_iter().map(|(bar, seconds)| Bar { bar, seconds }).collect();
            serde_json::to_vec(&Times { bars, seconds: times.seconds })
                .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        }
    })
}

/// How a file is called.
#[derive(Debug, Deserialize, IntoParams)]
pub struct Named {
    /// The name alone, without folders.
    #[serde(default)]
    name: String,
}

/// Checks a score to go on from, MusicXML (compressed or not) or ABC, and gives it back as the network reads it.
#[utoipa::path(post, path = "/api/scores", params(("name" = Option<String>, Query, description = "the file's name, for messages")),
    request_body(content_type = "application/octet-stream", content = String), responses(
        (status = 200, body = Upload),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 408, body = Problem),
        (status = 413, body = Problem),
        (status = 422, body = Problem, description = "The score is wrong, and where; or it is too long"),
    ))]
pub async fn upload(
    State(shared): State<Shared>,
    Query(Named { name }): Query<Named>,
    body: Body,
) -> Result<Json<Upload>, Problem> {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if name.len() > LONGEST_NAME || name.contains(odd) || matches!(name.as_str(), "." | "..") {
        return Err(Problem::wrong("that is not the name of a file").hint("the name alone, without folders"));
    }
    let bytes = body::bytes(body, shared.desk.limits()).await?;
    blocking(&shared, move || upload::read(&bytes, &name)).await.map(Json)
}

/// What to convert to.
#[derive(Debug, Deserialize)]
pub struct To {
    to: String,
}

/// Converts a piece of ABC.
#[utoipa::path(post, path = "/api/convert", params(("to" = Form, Query)),
    request_body(content_type = "text/vnd.abc", content = String), responses(
        (status = 200, content(
            (String = "text/vnd.abc"), (String = "application/vnd.recordare.musicxml+xml"), (Midi = "audio/midi"),
            (Times = "application/json"),
        )),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 408, body = Problem), (status = 413, body = Problem),
        (status = 422, body = Problem, description = "The piece is no ABC, and where; or it is too long"),
        (status = 503, body = Problem, description = "Too much is being sent; try again after Retry-After seconds",
            headers(("Retry-After" = u32))),
    ))]
pub async fn convert(
    State(shared): State<Shared>,
    Query(To { to }): Query<To>,
    body: Body,
) -> Result<Response, Problem> {
    let form = Form::named(&to)?;
    let bytes = body::bytes(body, shared.desk.limits()).await?;
    let abc = String::from_utf8(bytes).map_err(|_| Problem::wrong("the piece is not UTF-8"))?;
    let abc = blocking(&shared, move || upload::parse(&abc).map(|_| abc)).await?;
    converted(&shared, abc, form, &format!("notagen.{}", form.end())).await
}
