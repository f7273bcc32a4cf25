//! PyTorch's `.pth` files, read and written without Python and without running anything in them.
//!
//! A file is a zip archive: `data.pkl`, a pickle of the object tree, and one uncompressed record
//! for each storage. [`File::open`] reads the pickle with a machine that knows only the opcodes and
//! globals that PyTorch writes, and refuses everything else by its name. Tensors stay in the file:
//! a [`TensorRef`] is a place in it, and [`TensorRef::load`] reads just that tensor.
//!
//! Storages are read with positioned reads into the tensor's own memory and not through a map: a
//! mapped file that shrinks kills the process, and its pages count as resident memory.
//!
//! [`write()`] makes the same format, one tensor at a time.

mod container;
mod dtype;
mod error;
mod foreign;
mod globals;
mod opcode;
mod pickle;
mod storage;
mod unpickle;
mod value;
mod write;

use std::{path::Path, sync::Arc};

pub use dtype::{from_name as kind_from_name, name as kind_name};
pub use error::{Error, Problem};
pub use storage::{Storage, TensorRef};
pub use value::{BigInt, Dict, TensorValue, Value};
pub use write::write;
pub(crate) use {
    foreign::is_safetensors,
    write::{Failure, elements},
};

/// An opened `.pth` file: the object tree, with its tensors still in the file.
#[derive(Debug)]
pub struct File {
    path: Arc<Path>,
    root: Value,
}

impl File {
    /// Reads the object tree of `path`; no tensor is read.
    pub fn open(path: &Path) -> Result<File, Error> {
        let shared: Arc<Path> = path.into();
        let root = container::Container::open(shared.clone())
            .and_then(|mut container| {
                let pickle = container.pickle()?;
                unpickle::unpickle(&pickle, &mut |key, width, bytes| container.storage(key, width, bytes))
            })
            .map_err(|problem| Error::new(path, problem))?;
        Ok(File { path: shared, root })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `torch.load` would give.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// What `torch.load` would give.
    pub fn into_root(self) -> Value {
        self.root
    }
}
