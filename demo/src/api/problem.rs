//! What is told to those whose request cannot be done.
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which one who finds everything full may try again.
const RETRY: HeaderValue = HeaderValue::from_static("60");

/// Why a request was refused, for people.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// One line.
    pub message: String,
    /// A way out, where there is one.
    pub hint: Option<String>,
    /// Of an uploaded score, or of a request's JSON: the line that is wrong, counted from 1.
    pub line: Option<usize>,
    #[serde(skip)]
    pub status: StatusCode,
}

/// The message of a refusal, for the log.
#[derive(Debug, Clone)]
pub struct Refused(pub String);

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Problem {
        Problem { message: message.into(), hint: None, line: None, status }
    }

    /// A request that makes no sense.
    pub fn wrong(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    pub fn line(mut self, line: Option<usize>) -> Problem {
        self.line = line;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (refused, full) = (Refused(self.message.clone()), self.status == StatusCode::SERVICE_UNAVAILABLE);
        let mut response = (self.status, Json(self)).into_response();
        if full {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY);
        }
        response.extensions_mut().insert(refused);
        response
    }
}
