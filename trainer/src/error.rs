//! The crate's error, and what kinds of it there are.
use std::path::PathBuf;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An entry of an index that cannot be used.
    #[error("{}: {problem}", path.display())]
    Entry {
        /// The index.
        path: PathBuf,
        /// The entry, and what is wrong with it.
        problem: String,
    },
    /// A piece that cannot be trained on.
    #[error("{}: {source}", path.display())]
    Piece {
        /// The piece.
        path: PathBuf,
        /// What is wrong with it.
        source: model::Error,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Config(String),
    /// An index with nothing to train on.
    #[error("{}: no piece {}", path.display(), pattern.as_ref().map_or("in it".to_owned(), |p| format!("matches `{p}`")))]
    Empty {
        /// The index.
        path: PathBuf,
        /// The glob on the pieces' names, where there was one.
        pattern: Option<String>,
    },
    /// Steps whose loss or gradient is not finite, one after the other.
    #[error("{steps} steps in a row gave a loss or gradient that is not finite (the last at step {step}, loss {loss})")]
    NotFinite {
        /// How many.
        steps: u64,
        /// The last of them.
        step: u64,
        /// Its loss.
        loss: f64,
    },
    /// A checkpoint that does not belong to this training.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An index that could not be read.
    #[error(transparent)]
    Notation(#[from] notation::Error),
    /// A failure of the network.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// Another process of the training is gone, hangs or failed.
    #[error("{0}")]
    Peer(String),
    /// A failure inside libtorch.
    #[error("libtorch: {0}")]
    TorchExt(#[from] torch_ext::Error),
    /// A weights file that could not be read or written.
    #[error(transparent)]
    Pth(#[from] model::pth::Error),
    /// A weights file that is not what it has to be.
    #[error(transparent)]
    Weights(#[from] model::weights::Error),
    /// A fault of this program.
    #[error("{0}")]
    Internal(String),
}

/// What kind of failure an [`Error`] is: what a caller does depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The settings are wrong.
    Config,
    /// A file is missing, broken or cannot be written.
    Data,
    /// Another process of the training failed: its own error says why.
    Peer,
    /// The device or the machine has too little memory.
    OutOfMemory,
    /// The training diverged.
    NotFinite,
    /// A fault of this program or of libtorch.
    Internal,
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Error {
        Error::Model(error.into())
    }
}

impl Error {
    /// A failure while ranks work together.
    pub(crate) fn peer(error: torch_ext::Error) -> Error {
        match error.kind() {
            torch_ext::ErrorKind::Peer => Error::Peer(error.to_string()),
            _ => Error::TorchExt(error),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config(_) => ErrorKind::Config,
            Error::Peer(_) => ErrorKind::Peer,
            Error::NotFinite { .. } => ErrorKind::NotFinite,
            Error::Internal(_) => ErrorKind::Internal,
            Error::TorchExt(error) | Error::Model(model::Error::Torch(error)) => match error.kind() {
                torch_ext::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
                torch_ext::ErrorKind::Peer => ErrorKind::Peer,
                _ => ErrorKind::Internal,
            },
            _ => ErrorKind::Data,
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match (self, self.kind()) {
            (_, ErrorKind::NotFinite) => "lower learning_rate, set max_grad_norm: 1.0, or use precision: bf16",
            (_, ErrorKind::Peer) => "that rank's log says why; the same command goes on from the last checkpoint",
            (_, ErrorKind::OutOfMemory) => {
                "raise accumulation_steps, lower batch_size, or set activation_checkpointing: true"
            }
            (Error::Piece { source: model::Error::Character { .. }, .. }, _) => {
                "preprocess turns characters like this one into ASCII: train on its output"
            }
            (Error::Notation(notation::Error::Io { path, source }), _)
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                match path.extension() {
                    Some(e) if e == "abc" => {
                        "key_augmentation: none needs the piece in its own key, nearby and all need all 15 keys; run preprocess again"
                    }
                    _ => "a preprocess stage writes the index files",
                }
            }
            (Error::Notation(error), _) => return error.hint(),
            (Error::Pth(error), _) => return error.hint(),
            (Error::Weights(error), _) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) trait At<T> {
    /// Names the file in an input or output error.
    fn at(self, path: &std::path::Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path) -> Result<T> {
        self.map_err(|source| Error::File { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn memory_that_is_not_there_is_told_as_such() {
        let error = Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu)).map_err(Error::from).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("accumulation_steps")));
        let other = Tensor::ones([2], (Kind::Float, Device::Cpu)).f_view([3]).map_err(Error::from).unwrap_err();
        assert_eq!((other.kind(), other.hint()), (ErrorKind::Internal, None), "{other}");
    }
}
