//! The crate's error and its kinds.

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Arguments or settings that do not belong together.
    Argument,
    /// A driver, a card or a library that is not there or cannot be used.
    Device,
    /// The memory of this machine or of a card ran out.
    OutOfMemory,
    /// Another rank is gone, hangs or cannot be reached.
    Peer,
    /// Everything else that went wrong inside libtorch or here.
    Internal,
}

/// A failure inside libtorch, or arguments that do not belong together.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// An [`Error`] of a kind, with a text as `format!` takes it.
macro_rules! error {
    ($kind:ident, $($text:tt)+) => { $crate::Error::new($crate::ErrorKind::$kind, format!($($text)+)) };
}

/// The result of a call into libtorch.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether less memory could help.
    pub fn is_out_of_memory(&self) -> bool {
        self.kind == ErrorKind::OutOfMemory
    }

    /// Reads a message of the shim's, whose first byte is its kind (`shim/guarded.h`).
    pub(crate) fn of_shim(message: &str) -> Error {
        let kind = match message.bytes().next() {
            Some(b'a') => ErrorKind::Argument,
            Some(b'm') => ErrorKind::OutOfMemory,
            Some(b'p') => ErrorKind::Peer,
            Some(b'!') => return Error::new(ErrorKind::OutOfMemory, "out of memory"),
            _ => return Error::of_libtorch(message.get(1..).unwrap_or_default()),
        };
        Error::new(kind, first_line(&message[1..]))
    }

    /// The same message, as the shim has it.
    pub(crate) fn to_shim(&self) -> Vec<u8> {
        let kind = match self.kind {
            ErrorKind::Argument => b'a',
            ErrorKind::OutOfMemory => b'm',
            ErrorKind::Peer => b'p',
            ErrorKind::Device | ErrorKind::Internal => b'i',
        };
        [&[kind], self.message.as_bytes()].concat()
    }

    /// `tch` keeps the text of an exception and not its type, and libtorch has no type of its own for memory of a CPU: here
    /// alone the text tells that memory ran out.
    fn of_libtorch(message: &str) -> Error {
        let ran_out = message.contains("out of memory") || message.contains("can't allocate memory");
        Error::new(if ran_out { ErrorKind::OutOfMemory } else { ErrorKind::Internal }, first_line(message))
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Error {
        Error::of_libtorch(&error.to_string())
    }
}

/// libtorch appends pages of C++ frames.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or("libtorch failed without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn memory_that_runs_out_is_known_whoever_reports_it() {
        // More than any address space.
        let tch = Tensor::f_empty([1 << 50], (Kind::Double, Device::Cpu)).map_err(Error::from);
        let shim = crate::gather_rows(
            &Tensor::zeros([1, 1], (Kind::Double, Device::Cpu)).expand([1, 1 << 40], false),
            &Tensor::zeros([1 << 10], (Kind::Int64, Device::Cpu)),
            &Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
        );
        for error in [tch.unwrap_err(), shim.unwrap_err()] {
            assert!(error.is_out_of_memory(), "{error}");
            assert_eq!(error.to_string().lines().count(), 1);
            assert_eq!(Error::of_shim(&String::from_utf8(error.to_shim()).unwrap()).kind(), error.kind());
        }
        let wrong =
            Tensor::zeros([2], (Kind::Float, Device::Cpu)).f_matmul(&Tensor::zeros([3], (Kind::Float, Device::Cpu)));
        assert_eq!(Error::from(wrong.unwrap_err()).kind(), ErrorKind::Internal);
        assert_eq!(Error::of_shim("!").kind(), ErrorKind::OutOfMemory);
    }
}
