//! The local demo: a page on which one chooses, watches a piece being written, hears it and keeps it; and the same as
//! an API for other front ends (`/openapi.json`).
//!
//! One thread writes music ([`engine`]), in a batch that all visitors share; the others answer requests ([`server`],
//! [`api`]). Between them lies the [`desk`]: who waits, whose piece is being written, and what is written so far.
mod api;
mod assets;
mod choices;
mod desk;
mod engine;
mod estimate;
mod growing;
mod piece;
mod server;
mod upload;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use model::generate::{Generator, Options};
use serde_json::{Value, json};

pub use api::openapi;
use desk::Desk;

/// What is served, where, and within which limits.
pub struct Config {
    /// What the weights are called.
    pub weights: String,
    /// Their SHA-256, of the file: with seed and settings it names a piece.
    pub sha256: String,
    /// `Period_Composer_Instrumentation` to choose from; none for networks that know no prompts, or others.
    pub prompts: Vec<String>,
    /// Where to listen.
    pub host: IpAddr,
    /// 0 takes a free one.
    pub port: u16,
    /// What visitors may use up.
    pub limits: Limits,
}

/// What visitors may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Pieces written at once.
    pub at_once: usize,
    /// Pieces that wait.
    pub queue: usize,
    /// Bytes of a request.
    pub body: usize,
    /// A piece's share of the time, as in [`Options::max_seconds`].
    pub seconds: f64,
    /// Patches of a piece.
    pub patches: Option<usize>,
    /// The head of a request has to be there within this time, and then its body; and a reader has to take something of
    /// the answer.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            at_once: 8,
            queue: 100,
            body: 4 << 20,
            seconds: 20.0 * 60.0,
            patches: None,
            patience: Duration::from_secs(15),
        }
    }
}

/// Something that happened, for people and for programs.
#[derive(Debug, Clone)]
pub struct Line {
    /// `listening`, `queued`, `began`, `finished`, `failed`, `stopped`, `refused`, `warning` or `closed`.
    pub event: &'static str,
    /// For people, without a line end.
    pub message: String,
    /// For programs.
    pub fields: Value,
}

/// Where lines go.
pub type Log = Arc<dyn Fn(&Line) + Send + Sync>;

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Host and port.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system refuses threads or sockets.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
    /// A prompt that is no choice.
    #[error("prompt {line}: {prompt:?} is not Period_Composer_Instrumentation")]
    Prompt {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        prompt: String,
    },
    /// The network fails.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A fault of our own.
    #[error("the writing of music broke off: a fault of notagen-train")]
    Fault,
}

impl Error {
    /// A way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Listen { .. } => Some("choose another --port, or stop what listens there".to_owned()),
            Error::Model(error) => error.hint(),
            _ => None,
        }
    }
}

/// Serves until `stop` is set. Clients' streams are told, and what they have is theirs.
///
/// # Errors
/// The address is taken, or the network fails for good.
pub fn serve(config: Config, mut generator: Generator, stop: &AtomicBool, log: Log) -> Result<(), Error> {
    let choices = choices::linked(&config.prompts)?;
    let address = SocketAddr::new(config.host, config.port);
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;

    let model = api::Model::new(&config, generator.architecture(), choices);
    let desk = Arc::new(Desk::new(config.limits, Arc::clone(&log)));
    let written = thread::scope(|scope| {
        let engine = scope.spawn(|| {
            let _closes = Closes(&desk);
            let options = Options {
                batch_size: Some(config.limits.at_once),
                max_seconds: config.limits.seconds,
                max_attempts: ATTEMPTS,
                check: &model::generate::check,
                ..Options::default()
            };
            engine::run(&mut generator, &desk, &options)
        });
        for &missing in assets::missing() {
            log(&Line { event: "warning", message: missing.to_owned(), fields: json!({}) });
        }
        log(&Line {
            event: "listening",
            message: format!("open http://{address}/ in a browser; Ctrl-C ends"),
            fields: json!({ "address": address.to_string(), "url": format!("http://{address}/") }),
        });
        let served = runtime.block_on(server::run(listener, Arc::clone(&desk), model, &config, stop, &log));
        desk.close();
        // What still converts a score is not waited for.
        runtime.shutdown_background();
        let written = engine.join().unwrap_or(Err(Error::Fault));
        served.map_err(Error::Io).and(written)
    });
    let message = match stop.load(Ordering::Relaxed) {
        true => "stopped",
        false => "stopped, since no music can be written any more",
    };
    log(&Line { event: "closed", message: message.to_owned(), fields: json!({}) });
    written
}

/// Attempts at a piece: a visitor waits for them.
const ATTEMPTS: u32 = 3;

/// However the engine ends, nobody waits for it any longer.
struct Closes<'a>(&'a Desk);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
