//! Who is let in, and what browsers are told that the page may do.
use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::ApiProblem;

/// Refuses requests that are not meant for this server, and tells browsers what the page may do.
pub async fn guard(host: IpAddr, request: Request, next: Next) -> Response {
    let mut response = match why_refused(host, request.method(), request.headers()) {
        None => next.run(request).await,
        Some(why) => {
            ApiProblem::new(StatusCode::FORBIDDEN, why).hint("--host 0.0.0.0 serves other machines").into_response()
        }
    };
    let headers = [
        // Engraved scores have inline styles; a worker renders the sound.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in headers {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Why a request is refused: the page of another site sends it through a visitor's browser, or that site's name resolves
/// to this machine (DNS rebinding).
fn why_refused(host: IpAddr, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = text(header::HOST).unwrap_or_default();
    if host.is_loopback() && !is_loopback(asked) {
        return Some("this server is for its own machine, and was asked for under another name");
    }
    let origin = text(header::ORIGIN)?;
    let same = origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(asked));
    (method != Method::GET && !same).then_some("another site's page sent this")
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_loopback_server_refuses_other_names_and_other_sites() {
        let (loopback, any) = ([127, 0, 0, 1].into(), [0, 0, 0, 0].into());
        for host in ["localhost", "LOCALHOST:7861", "127.0.0.1:7861", "127.1.2.3", "[::1]:7861", "[::1]"] {
            assert_eq!(why_refused(loopback, &Method::GET, &headers(&[(header::HOST, host)])), None, "{host}");
        }
        for host in ["example.com", "localhost.example.com:7861", "10.0.0.1", ""] {
            let headers = headers(&[(header::HOST, host)]);
            assert!(why_refused(loopback, &Method::GET, &headers).is_some(), "{host}");
            assert_eq!(why_refused(any, &Method::GET, &headers), None, "{host}");
        }
        let of = |origin| headers(&[(header::HOST, "localhost:1"), (header::ORIGIN, origin)]);
        assert_eq!(why_refused(loopback, &Method::POST, &of("http://localhost:1")), None);
        for origin in ["http://example.com", "null", "http://localhost:2"] {
            assert!(why_refused(any, &Method::POST, &of(origin)).is_some(), "{origin}");
        }
    }
}
