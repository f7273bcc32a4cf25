//! The local demo: a page on which visitors ask for a piece, watch it being written, hear it and download it; and the
//! same as an API for other front ends (`/openapi.json`).
//!
//! One thread writes music (`writer`), in a batch that all visitors share; others answer requests (`server`, `api`).
//! The `queue` is between them: it holds the pieces that wait, those being written, and what is written so far.
mod access;
mod api;
mod assets;
mod config;
mod error;
mod estimate;
mod log;
mod partial_score;
mod piece;
mod problem;
mod prompt_choices;
mod queue;
mod server;
mod upload;
mod writer;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use model::generate::{Generator, Options};
use serde_json::json;

pub use api::openapi;
pub use config::{Config, VisitorLimits};
pub use error::Error;
pub use log::{Log, LogLine};
use queue::PieceQueue;

/// Serves until `stop` is set. Then event streams end with `closed`; visitors keep what they have.
///
/// # Errors
/// The address is taken, or the network fails for good.
pub fn serve(config: Config, mut generator: Generator, stop: &AtomicBool, log: Log) -> Result<(), Error> {
    let periods = prompt_choices::by_period(&config.prompts)?;
    let address = SocketAddr::new(config.host, config.port);
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;

    let model = api::ModelInfo::new(&config, generator.architecture(), periods);
    let queue = Arc::new(PieceQueue::new(config.limits, Arc::clone(&log)));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _closes = CloseOnDrop(&queue);
            let options = Options {
                batch_size: Some(config.limits.at_once),
                max_seconds: config.limits.seconds,
                max_attempts: ATTEMPTS,
                check: &model::generate::check,
                ..Options::default()
            };
            writer::run(&mut generator, &queue, &options)
        });
        for &missing in assets::missing() {
            log(&LogLine { event: "warning", message: missing.to_owned(), fields: json!({}) });
        }
        log(&LogLine {
            event: "listening",
            message: format!("open http://{address}/ in a browser; Ctrl-C ends"),
            fields: json!({ "address": address.to_string(), "url": format!("http://{address}/") }),
        });
        let served = runtime.block_on(server::run(listener, Arc::clone(&queue), model, &config, stop, &log));
        queue.close();
        // Conversions that still run are not waited for.
        runtime.shutdown_background();
        let written = writer.join().unwrap_or(Err(Error::Internal));
        served.map_err(Error::Io).and(written)
    });
    let message = match stop.load(Ordering::Relaxed) {
        true => "stopped",
        false => "stopped, since no music can be written any more",
    };
    log(&LogLine { event: "closed", message: message.to_owned(), fields: json!({}) });
    written
}

/// Attempts at a piece. Few, since a visitor waits for them.
const ATTEMPTS: u32 = 3;

/// Closes the queue however the writing thread ends, so that nobody waits for it.
struct CloseOnDrop<'a>(&'a PieceQueue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
