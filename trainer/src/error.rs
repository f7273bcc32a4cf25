//! The crate's error.
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
    Settings(String),
    /// An index with nothing to train on.
    #[error("{}: no piece {}", path.display(), pattern.as_ref().map_or("in it".to_owned(), |p| format!("matches `{p}`")))]
    Empty {
        /// The index.
        path: PathBuf,
        /// The glob on the pieces' names, where there was one.
        pattern: Option<String>,
    },
    /// Training that went astray.
    #[error("{steps} steps in a row gave a loss or gradient that is not finite (the last at step {step}, loss {loss})")]
    Diverged {
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

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Model(model::Error::Torch(error)) | Error::TorchExt(error) if error.is_out_of_memory() => Some(
                "a smaller batch_size, more accumulation_steps or activation_checkpointing: true take less memory".to_owned(),
            ),
            Error::Diverged { .. } => {
                Some("lower learning_rate, set max_grad_norm: 1.0, or use precision: bf16".to_owned())
            }
            Error::Peer(_) => Some("that rank's log says why; the same command goes on from the last checkpoint".to_owned()),
            Error::Piece { source: model::Error::Character { .. }, .. } => {
                Some("preprocess turns characters like this one into ASCII: train on its output".to_owned())
            }
            Error::Notation(notation::Error::Io { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                Some(match path.extension() {
                    Some(e) if e == "abc" => {
                        "key_augmentation: none needs the piece in its own key, nearby and all need all 15 keys; run preprocess again"
                            .to_owned()
                    }
                    _ => "a preprocess stage writes the index files".to_owned(),
                })
            }
            Error::Notation(error) => error.hint(),
            Error::Pth(error) => error.hint(),
            Error::Weights(error) => error.hint(),
            _ => None,
        }
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
