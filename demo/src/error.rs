//! Errors that end the demo.
use std::net::SocketAddr;

/// An error that ends the demo.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Host and port.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system refuses threads or sockets.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
    /// A prompt that has not three parts.
    #[error("prompt {line}: {prompt:?} is not Period_Composer_Instrumentation")]
    Prompt {
        /// Counted from 1.
        line: usize,
        /// The prompt as given.
        prompt: String,
    },
    /// The network fails.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A bug in this crate: the writing thread panicked.
    #[error("the writing of music broke off: a fault of notagen-train")]
    Internal,
}

impl Error {
    /// A way out, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Listen { .. } => Some("choose another --port, or stop what listens there".to_owned()),
            Error::Model(error) => error.hint(),
            _ => None,
        }
    }
}
