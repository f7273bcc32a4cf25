//! Bodies of requests: not too long, and not too slow.
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::Limits;

/// The bytes of a body. Of one that is too long so much more is read, and thrown away, that whoever sends it hears why it
/// is refused.
pub async fn bytes(body: Body, limits: &Limits) -> Result<Vec<u8>, Problem> {
    let (mut stream, mut bytes, mut length) = (body.into_data_stream(), Vec::new(), 0);
    let read = async {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Problem::wrong("the request broke off"))?;
            length += chunk.len();
            if length <= limits.body {
                bytes.extend_from_slice(&chunk);
            } else if length > limits.body.saturating_mul(4) {
                break;
            }
        }
        Ok::<_, Problem>(())
    };
    match tokio::time::timeout(limits.patience, read).await {
        Err(_) => {
            let message = format!("the request did not come within {} s", limits.patience.as_secs());
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, message));
        }
        Ok(read) => read?,
    }
    if length > limits.body {
        let message = format!("the request is larger than {} KiB", limits.body / 1024);
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).hint("a part of the score will do"));
    }
    Ok(bytes)
}

/// A body of JSON. It has to say that it is: browsers do not let other sites' pages send that.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let message = "the request has to be JSON (Content-Type: application/json)";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let bytes = bytes(body, limits).await?;
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::wrong("the request's JSON has to be an object, not a list").hint("see /openapi.json"));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Problem::wrong(format!("the request's JSON: {error}")).hint("see /openapi.json").line(Some(error.line()))
    })
}
