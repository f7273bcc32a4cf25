//! The crate's error.

use std::path::{Path, PathBuf};

/// What can go wrong in building and running a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two shapes that had to agree.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor.
        what: String,
        /// The shape it must have.
        expected: Vec<i64>,
        /// The shape it has.
        found: Vec<i64>,
    },
    /// A state dict without one of the model's tensors.
    #[error("the weights have no tensor {0}")]
    Missing(String),
    /// Values outside what the model takes.
    #[error("{0}")]
    Invalid(String),
    /// A character that the vocabulary does not have.
    #[error("line {line}, column {column}: the character {character:?} is not one of the network's (ASCII 1 to 127)")]
    Character {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What stands there.
        character: char,
    },
    /// A prompt that the network has not been trained with.
    #[error("{prompt:?} is none of the published prompts")]
    Prompt {
        /// What was asked for.
        prompt: String,
        /// The published one most like it.
        nearest: Option<String>,
    },
    /// A file that could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of a feature that is none.
    #[error("{}: {problem}", path.display())]
    Feature {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of weights that cannot be used.
    #[error(transparent)]
    Weights(#[from] crate::weights::Error),
    /// A failure inside libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] torch_ext::Error),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Error {
        Error::Torch(error.into())
    }
}

impl Error {
    /// Whether less memory could help.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Error::Torch(error) if error.is_out_of_memory())
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Prompt { nearest: Some(nearest), .. } => Some(format!("did you mean {nearest:?}?")),
            Error::Weights(error) => error.hint(),
            _ => None,
        }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) trait AtPath<T> {
    /// Names the file in an input or output error.
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { path: path.to_owned(), source })
    }
}
