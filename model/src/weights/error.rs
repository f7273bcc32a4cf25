//! Why a file of weights is of no use.

use std::path::PathBuf;

use crate::{architecture, pth};

/// A file of weights and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read or written at all.
    #[error(transparent)]
    File(#[from] pth::Error),
    /// A safetensors file that contradicts itself.
    #[error("{}: {what}", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file without weights.
    #[error("{}: it holds no weights (at the top there is {found})", path.display())]
    NoWeights {
        /// The file.
        path: PathBuf,
        /// What there is.
        found: String,
    },
    /// The weights of another network.
    #[error("{}: these are the weights of {kind}, not of a NotaGen", path.display())]
    NotNotaGen {
        /// The file.
        path: PathBuf,
        /// The network.
        kind: String,
    },
    /// The weights of another network than one that hears music.
    #[error("{}: these are the weights of {kind}, not of {wanted}", path.display())]
    NotMusic {
        /// The file.
        path: PathBuf,
        /// The network.
        kind: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A tensor that is not there.
    #[error("{}: the tensor `{key}` is missing{}", path.display(), others(*more))]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The first tensor that is missing.
        key: String,
        /// How many more are missing.
        more: usize,
    },
    /// A tensor that the network does not have.
    #[error("{}: {network} of these sizes has no tensor `{key}`{}", path.display(), others(*more))]
    UnexpectedKey {
        /// The file.
        path: PathBuf,
        /// The network.
        network: &'static str,
        /// The first such tensor.
        key: String,
        /// How many more there are.
        more: usize,
    },
    /// A tensor of another shape than the others ask for.
    #[error("{}: `{key}` has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// The shape that it has.
        found: Vec<i64>,
        /// The shape that it should have.
        expected: Vec<i64>,
    },
    /// A tensor of numbers that no network is made of.
    #[error("{}: `{key}` has {dtype}, expected float32, float16, bfloat16 or float64", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// The element type that it has.
        dtype: &'static str,
    },
    /// An output layer that is not the embedding.
    #[error("{}: `{output}` and `{embedding}` differ, and are one tensor in the network", path.display())]
    Untied {
        /// The file.
        path: PathBuf,
        /// The output layer.
        output: &'static str,
        /// The embedding.
        embedding: &'static str,
    },
    /// Sizes that no network can have.
    #[error("{}: {source}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The size at fault.
        source: architecture::Error,
    },
    /// A file name that contradicts the tensors.
    #[error("{}: the name says {field} {named}, the tensors say {found}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The size in question.
        field: &'static str,
        /// What the name says.
        named: i64,
        /// What the tensors say.
        found: i64,
    },
    /// A checkpoint without one of its parts.
    #[error("{}: there is no `{key}` in it", path.display())]
    MissingEntry {
        /// The file.
        path: PathBuf,
        /// The part.
        key: &'static str,
    },
    /// A part of a checkpoint that is not what PyTorch writes.
    #[error("{}: `{place}` {what}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The part.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file that cannot be made as asked.
    #[error("{}: {what}", path.display())]
    Export {
        /// The file to be made.
        path: PathBuf,
        /// Why not.
        what: String,
    },
}

impl Error {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::File(error) => error.hint(),
            Error::SafeTensors { what, .. } if what.contains("truncated") => {
                Some("download or copy it again, and compare its size with the original's".into())
            }
            Error::NoWeights { .. } => Some("a checkpoint is {'model': state_dict, …}, or the state dict alone".into()),
            Error::Architecture { source, .. } => source.hint(),
            Error::Name { .. } => Some("the tensors are right: rename the file".into()),
            Error::Untied { output, .. } => {
                Some(format!("the original uses one for both: leave `{output}` out to use the embedding"))
            }
            Error::Export { what, .. } if what.contains("extension") => {
                Some("end the name with .pth, PyTorch's format, or .safetensors".into())
            }
            Error::MissingEntry { key: "optimizer", .. } => {
                Some("it holds weights alone: start from them with a new optimizer".into())
            }
            _ => None,
        }
    }
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more)") }
}
