//! Connections: how many, how slow, from where, and the end of all of them.
use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use serde_json::json;
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::{
    Config, Line, Log,
    api::{
        self, Model,
        problem::{Problem, Refused},
    },
    desk::Desk,
};

/// Connections at once: a follower has one for the events, and a few more now and then.
const CONNECTIONS: usize = 1024;
/// Connections have this time to end.
const FAREWELL: Duration = Duration::from_secs(3);
/// Looks for `stop` so often.
const LOOK: Duration = Duration::from_millis(50);

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Visitor(SocketAddr);

/// Answers requests until `stop` is set or nothing is written any more.
pub async fn run(
    listener: TcpListener,
    desk: Arc<Desk>,
    model: Model,
    config: &Config,
    stop: &AtomicBool,
    log: &Log,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (logging, host) = (Arc::clone(log), config.host);
    let router = api::router(Arc::clone(&desk), model)
        .layer(middleware::from_fn(move |request: Request, next: Next| guard(host, request, next)))
        .layer(middleware::from_fn(move |request: Request, next: Next| watch(Arc::clone(&logging), request, next)));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    while !stop.load(Ordering::Relaxed) && !desk.busy().closed {
        let accepted = match tokio::time::timeout(LOOK, listener.accept()).await {
            Err(_) => continue,
            Ok(accepted) => accepted,
        };
        // Such an error is the connection's, or one of too many open files: neither ends the server.
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let (router, patience, watcher) = (router.clone(), config.limits.patience, connections.watcher());
                let served = connection(stream, address, router, patience, watcher, Arc::clone(log));
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => refused(log, address, "a connection", &format!("there are {CONNECTIONS} already")),
        }
    }
    desk.close();
    let _ = tokio::time::timeout(FAREWELL, connections.shutdown()).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    patience: Duration,
    connections: Watcher,
    log: Log,
) {
    // Events are small, and should not wait for each other.
    let _ = stream.set_nodelay(true);
    // Browsers open connections that they may need: nothing has been asked on those.
    if !matches!(tokio::time::timeout(patience, stream.peek(&mut [0])).await, Ok(Ok(1))) {
        return;
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let answered = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&answered);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        answers.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Visitor(address));
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = connections.watch(served).await {
        // A connection that rests after its requests ends so too.
        if error.is_timeout() && !answered.load(Ordering::Relaxed) {
            refused(&log, address, "a request", "its head did not come in time");
        } else if error.is_parse() {
            refused(&log, address, "a request", &format!("it is not HTTP: {error}"));
        } else if is_slow(&error) {
            refused(
                &log,
                address,
                "a connection",
                &format!("nothing was taken of an answer for {} s", patience.as_secs()),
            );
        }
    }
}

/// The reader took nothing for too long.
fn is_slow(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

fn refused(log: &Log, address: SocketAddr, what: &str, why: &str) {
    log(&Line {
        event: "refused",
        message: format!("refused {what} of {address}: {why}"),
        fields: json!({ "address": address.to_string(), "request": what, "reason": why }),
    });
}

/// Lets in what is meant for this server, and tells browsers what the page may do.
async fn guard(host: IpAddr, request: Request, next: Next) -> Response {
    let mut response = match stranger(host, request.method(), request.headers()) {
        None => next.run(request).await,
        Some(why) => {
            Problem::new(StatusCode::FORBIDDEN, why).hint("--host 0.0.0.0 serves other machines").into_response()
        }
    };
    let headers = [
        // Engraved scores have styles of their own; sound is rendered by a worker.
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

/// Why a request is not let in: another site's page sends it from a visitor's browser, or has its own name lead here.
fn stranger(host: IpAddr, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
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

/// Logs what is refused.
async fn watch(log: Log, request: Request, next: Next) -> Response {
    let visitor =
        request.extensions().get::<Visitor>().map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |who| who.0);
    let what: String = format!("{} {}", request.method(), request.uri()).chars().take(200).collect();
    let response = next.run(request).await;
    let status = response.status();
    // A browser asks for what it likes to have.
    if status.is_client_error() || status.is_server_error() {
        let why = response.extensions().get::<Refused>().map_or_else(|| status.to_string(), |why| why.0.clone());
        refused(&log, visitor, &format!("{what:?}"), &format!("{}, {}", status.as_u16(), on_a_line(&why)));
    }
    response
}

/// Whatever is in a request stays on its line. Quotes are the log's to escape.
fn on_a_line(text: &str) -> String {
    let shown = |c: char| if matches!(c, '\'' | '"' | '\\') { c.to_string() } else { c.escape_debug().to_string() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_reason_stays_on_its_line_and_its_quotes_are_not_escaped() {
        assert_eq!(on_a_line("another site's \"page\"\r\n\u{2028}"), "another site's \"page\"\\r\\n\\u{2028}");
    }

    #[test]
    fn other_names_and_other_sites_are_strangers_to_a_loopback_server() {
        let (loopback, any) = ([127, 0, 0, 1].into(), [0, 0, 0, 0].into());
        for host in ["localhost", "LOCALHOST:7861", "127.0.0.1:7861", "127.1.2.3", "[::1]:7861", "[::1]"] {
            assert_eq!(stranger(loopback, &Method::GET, &headers(&[(header::HOST, host)])), None, "{host}");
        }
        for host in ["example.com", "localhost.example.com:7861", "10.0.0.1", ""] {
            let headers = headers(&[(header::HOST, host)]);
            assert!(stranger(loopback, &Method::GET, &headers).is_some(), "{host}");
            assert_eq!(stranger(any, &Method::GET, &headers), None, "{host}");
        }
        let of = |origin| headers(&[(header::HOST, "localhost:1"), (header::ORIGIN, origin)]);
        assert_eq!(stranger(loopback, &Method::POST, &of("http://localhost:1")), None);
        for origin in ["http://example.com", "null", "http://localhost:2"] {
            assert!(stranger(any, &Method::POST, &of(origin)).is_some(), "{origin}");
        }
    }
}
