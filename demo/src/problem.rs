//! The answer to a request that is refused.
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which to try again, if the server is full.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("60");

/// Why a request was refused, for people.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ApiProblem {
    /// One line.
    pub message: String,
    /// A way out, if there is one.
    pub hint: Option<String>,
    /// The line that is wrong in an uploaded score or in the request's JSON, counted from 1.
    pub line: Option<usize>,
    #[serde(skip)]
    pub status: StatusCode,
}

/// The message of a refusal, for the log.
#[derive(Debug, Clone)]
pub struct RefusalReason(pub String);

impl ApiProblem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiProblem {
        ApiProblem { message: message.into(), hint: None, line: None, status }
    }

    /// A request with something wrong in it (400).
    pub fn bad_request(message: impl Into<String>) -> ApiProblem {
        ApiProblem::new(StatusCode::BAD_REQUEST, message)
    }

    /// A score that is wrong, or too long (422).
    pub fn bad_score(message: impl Into<String>) -> ApiProblem {
        ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> ApiProblem {
        self.hint = Some(hint.into());
        self
    }

    pub fn line(mut self, line: Option<usize>) -> ApiProblem {
        self.line = line;
        self
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let (refused, full) = (RefusalReason(self.message.clone()), self.status == StatusCode::SERVICE_UNAVAILABLE);
        let mut response = (self.status, Json(self)).into_response();
        if full {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response.extensions_mut().insert(refused);
        response
    }
}
