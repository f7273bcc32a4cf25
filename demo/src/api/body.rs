//! Bodies of requests, with limits on their length and time.
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::{config::VisitorLimits, problem::ApiProblem};

/// Reads a body. Up to four times the limit is read and thrown away, since a client that is still sending would not see
/// why it is refused.
pub async fn bytes(body: Body, limits: &VisitorLimits) -> Result<Vec<u8>, ApiProblem> {
    let (mut stream, mut bytes, mut length) = (body.into_data_stream(), Vec::new(), 0);
    let read = async {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| ApiProblem::bad_request("the request broke off"))?;
            length += chunk.len();
            if length <= limits.body {
                bytes.extend_from_slice(&chunk);
            } else if length > limits.body.saturating_mul(4) {
                break;
            }
        }
        Ok::<_, ApiProblem>(())
    };
    match tokio::time::timeout(limits.io_timeout, read).await {
        Err(_) => {
            let message = format!("the request did not come within {} s", limits.io_timeout.as_secs());
            return Err(ApiProblem::new(StatusCode::REQUEST_TIMEOUT, message));
        }
        Ok(read) => read?,
    }
    if length > limits.body {
        let message = format!("the request is larger than {} KiB", limits.body / 1024);
        return Err(ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, message).hint("a part of the score will do"));
    }
    Ok(bytes)
}

/// Reads a JSON body. The content type is required, since browsers do not let the pages of other sites send it.
pub async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limits: &VisitorLimits,
) -> Result<T, ApiProblem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let message = "the request has to be JSON (Content-Type: application/json)";
        return Err(ApiProblem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let bytes = bytes(body, limits).await?;
    // serde would read a list as the fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(
            ApiProblem::bad_request("the request's JSON has to be an object, not a list").hint("see /openapi.json")
        );
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiProblem::bad_request(format!("the request's JSON: {error}"))
            .hint("see /openapi.json")
            .line(Some(error.line()))
    })
}
