//! Why a `.pth` file cannot be read or written.

use std::{io, path::Path, path::PathBuf};

/// A file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

impl Error {
    pub(crate) fn new(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_path_buf(), problem: Box::new(problem) }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        self.problem.hint()
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A folder.
    #[error("this is a folder, not a file of weights")]
    Folder,
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// A zip archive whose end is missing.
    #[error("the file is truncated: its end is missing (it has {bytes} bytes)")]
    Truncated {
        /// How many bytes are there.
        bytes: u64,
    },
    /// Another kind of file.
    #[error("this is {what}, not a .pth file of PyTorch")]
    Foreign {
        /// The kind of file.
        what: &'static str,
    },
    /// A Git LFS pointer in the place of the file.
    #[error("this is a Git LFS pointer, not the weights themselves")]
    LfsPointer,
    /// `torch.save` before PyTorch 1.6, or with `_use_new_zipfile_serialization=False`.
    #[error("this .pth file has PyTorch's old format (a bare pickle, before version 1.6)")]
    LegacyPickle,
    /// `torch.save` before PyTorch 0.1.10.
    #[error("this .pth file has PyTorch's first format (a tar archive)")]
    LegacyTar,
    /// A pickle that `torch.save` did not write.
    #[error("this is a plain Python pickle, not a .pth file of PyTorch")]
    PlainPickle,
    /// `torch.jit.save`.
    #[error("this is a TorchScript program, not a file of weights")]
    TorchScript,
    /// A zip archive of something else.
    #[error("this zip archive has no data.pkl: torch.save did not write it")]
    NotTorch,
    /// A record behind a password.
    #[error("the archive is encrypted (record `{record}`)")]
    Encrypted {
        /// The record.
        record: String,
    },
    /// A record that is compressed.
    #[error("record `{record}` is compressed; torch.save never compresses")]
    Compressed {
        /// The record.
        record: String,
    },
    /// A zip archive that contradicts itself.
    #[error("the zip archive is damaged: {0}")]
    Zip(String),
    /// A storage that the pickle speaks of and the archive lacks.
    #[error("record `{record}` is missing")]
    MissingRecord {
        /// The record.
        record: String,
    },
    /// A storage shorter than the pickle says.
    #[error("record `{record}` has {bytes} bytes and needs {needed}")]
    ShortStorage {
        /// The record.
        record: String,
        /// What it has.
        bytes: u64,
        /// What its tensors need.
        needed: u64,
    },
    /// An opcode that PyTorch does not write.
    #[error("data.pkl, byte {at}: opcode {name} is refused")]
    Opcode {
        /// Where.
        at: usize,
        /// Its name in Python's `pickletools`.
        name: String,
    },
    /// A class or function that weights do not need.
    #[error("data.pkl, byte {at}: `{name}` is refused: weights do not need it, and loading it could run code")]
    Global {
        /// Where.
        at: usize,
        /// Module and name.
        name: String,
    },
    /// A pickle that contradicts itself.
    #[error("data.pkl, byte {at}: {what}")]
    Pickle {
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// More than any checkpoint needs.
    #[error("{what} (the limit is {limit})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A tensor that reaches beyond its storage.
    #[error(
        "a tensor of shape {shape:?}, strides {stride:?} and offset {offset} lies outside its storage of {elements} elements"
    )]
    View {
        /// Its shape.
        shape: Vec<i64>,
        /// Its strides, in elements.
        stride: Vec<i64>,
        /// Its start, in elements.
        offset: i64,
        /// The storage's length, in elements.
        elements: u64,
    },
    /// A type of numbers that libtorch's Rust binding lacks.
    #[error("tensors of type {name} are not supported")]
    Dtype {
        /// Its name.
        name: String,
    },
    /// A tree that cannot be written.
    #[error("cannot be written: {0}")]
    Unwritable(String),
    /// libtorch refused.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
}

impl Problem {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Problem::Empty | Problem::Truncated { .. } | Problem::ShortStorage { .. } => {
                "download or copy it again, and compare its size with the original's"
            }
            Problem::LfsPointer => "fetch the file itself: `git lfs pull`, or download it from its page",
            Problem::Foreign { what } if what.contains("HTML") || what.contains("XML") || what.contains("JSON") => {
                "the server sent a message in the place of the file: download it again from the `resolve` address"
            }
            Problem::Foreign { what } if what.contains("safetensors") => "give it the extension .safetensors",
            Problem::LegacyPickle | Problem::LegacyTar | Problem::Compressed { .. } => {
                "save it again with a current PyTorch: torch.save(torch.load(path, map_location='cpu'), path)"
            }
            Problem::Encrypted { .. } => "unpack it with its password and save it again with torch.save",
            Problem::Global { .. } => {
                "if you trust the file, load it in Python and save its state dict alone: torch.save({'model': model.state_dict()}, path)"
            }
            _ => return None,
        };
        Some(text.into())
    }
}

pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Problem {
    move |source| Problem::Io { action, source }
}
