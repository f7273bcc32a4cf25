//! Connections: their number, their timeouts, and how they end.
use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
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
    middleware::{self, Next},
    response::Response,
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
    access,
    api::{self, ModelInfo},
    config::Config,
    log::{Log, LogLine},
    problem::RefusalReason,
    queue::PieceQueue,
};

/// Connections at once. Somebody who watches a piece has one for the events, and a few more for requests.
const CONNECTIONS: usize = 1024;
/// How long open connections may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// How often `stop` is checked.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
struct ClientAddress(SocketAddr);

/// Answers requests until `stop` is set or the queue is closed.
pub async fn run(
    listener: TcpListener,
    queue: Arc<PieceQueue>,
    model: ModelInfo,
    config: &Config,
    stop: &AtomicBool,
    log: &Log,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (logging, host) = (Arc::clone(log), config.host);
    let router = api::router(Arc::clone(&queue), model)
        .layer(middleware::from_fn(move |request: Request, next: Next| access::guard(host, request, next)))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            log_refusals(Arc::clone(&logging), request, next)
        }));
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    while !stop.load(Ordering::Relaxed) && !queue.load().closed {
        let accepted = match tokio::time::timeout(STOP_POLL_INTERVAL, listener.accept()).await {
            Err(_) => continue,
            Ok(accepted) => accepted,
        };
        // The connection failed, or too many files are open: neither ends the server.
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(STOP_POLL_INTERVAL).await;
            continue;
        };
        match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => {
                let (router, io_timeout, watcher) = (router.clone(), config.limits.io_timeout, connections.watcher());
                let served = connection(stream, address, router, io_timeout, watcher, Arc::clone(log));
                tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(_) => log_refusal(log, address, "a connection", &format!("there are {CONNECTIONS} already")),
        }
    }
    queue.close();
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, connections.shutdown()).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    io_timeout: Duration,
    connections: Watcher,
    log: Log,
) {
    // Events are small and should be sent at once.
    let _ = stream.set_nodelay(true);
    // Browsers open connections in advance. A connection without a request is no error.
    if !matches!(tokio::time::timeout(io_timeout, stream.peek(&mut [0])).await, Ok(Ok(1))) {
        return;
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(io_timeout));
    let answered = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&answered);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        answers.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ClientAddress(address));
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(io_timeout)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = connections.watch(served).await {
        // An idle connection ends with a timeout too; after a request that is no error.
        if error.is_timeout() && !answered.load(Ordering::Relaxed) {
            log_refusal(&log, address, "a request", "its head did not come in time");
        } else if error.is_parse() {
            log_refusal(&log, address, "a request", &format!("it is not HTTP: {error}"));
        } else if is_slow(&error) {
            log_refusal(
                &log,
                address,
                "a connection",
                &format!("nothing was taken of an answer for {} s", io_timeout.as_secs()),
            );
        }
    }
}

/// Whether the client took nothing of an answer for too long.
fn is_slow(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

fn log_refusal(log: &Log, address: SocketAddr, what: &str, why: &str) {
    log(&LogLine {
        event: "refused",
        message: format!("refused {what} of {address}: {why}"),
        fields: json!({ "address": address.to_string(), "request": what, "reason": why }),
    });
}

/// Logs the requests that are refused.
async fn log_refusals(log: Log, request: Request, next: Next) -> Response {
    let client = request
        .extensions()
        .get::<ClientAddress>()
        .map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |client| client.0);
    let what: String = format!("{} {}", request.method(), request.uri()).chars().take(200).collect();
    let response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let why = response.extensions().get::<RefusalReason>().map_or_else(|| status.to_string(), |why| why.0.clone());
        log_refusal(&log, client, &format!("{what:?}"), &format!("{}, {}", status.as_u16(), on_one_line(&why)));
    }
    response
}

/// The text with its line ends escaped, so that a request cannot add lines to the log. The log escapes quotes itself.
fn on_one_line(text: &str) -> String {
    let shown = |c: char| if matches!(c, '\'' | '"' | '\\') { c.to_string() } else { c.escape_debug().to_string() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_on_its_line_and_its_quotes_are_not_escaped() {
        assert_eq!(on_one_line("another site's \"page\"\r\n\u{2028}"), "another site's \"page\"\\r\\n\\u{2028}");
    }
}
