//! Tensors that stay in the file until they are asked for.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use tch::{Device, Kind, Tensor};

use super::{Error, Problem, dtype::swap_width, error::io};

/// A run of bytes in a file that one or more tensors look at.
#[derive(Debug)]
pub struct Storage {
    file: Arc<File>,
    path: Arc<Path>,
    name: String,
    start: u64,
    bytes: u64,
    /// Width of the numbers to be turned around, where the file was written on a big-endian machine.
    swap: Option<usize>,
}

impl Storage {
    pub(crate) fn new(file: Arc<File>, path: Arc<Path>, name: String, start: u64, bytes: u64) -> Self {
        Self { file, path, name, start, bytes, swap: None }
    }

    pub(super) fn swapped(mut self, kind: Kind) -> Self {
        self.swap = Some(swap_width(kind)).filter(|width| *width > 1);
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the record in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` from byte `at`, in this machine's byte order.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Problem> {
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes);
        if end.is_none() {
            let (record, bytes) = (self.name.clone(), self.bytes);
            return Err(Problem::ShortStorage { record, bytes, needed: at.saturating_add(buffer.len() as u64) });
        }
        self.file.read_exact_at(buffer, self.start + at).map_err(io("read"))?;
        if let Some(width) = self.swap {
            buffer.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        Ok(())
    }
}

/// A tensor in a file: a view of a [`Storage`].
#[derive(Debug, Clone)]
pub struct TensorRef {
    kind: Kind,
    shape: Vec<i64>,
    stride: Vec<i64>,
    offset: i64,
    storage: Arc<Storage>,
}

impl TensorRef {
    /// A view that lies inside its storage.
    pub(crate) fn new(
        kind: Kind,
        shape: Vec<i64>,
        stride: Vec<i64>,
        offset: i64,
        storage: Arc<Storage>,
    ) -> Result<Self, Problem> {
        let tensor = Self { kind, shape, stride, offset, storage };
        let width = kind.elt_size_in_bytes() as u64;
        let inside = tensor.end().is_some_and(|end| (end as u64).checked_mul(width) <= Some(tensor.storage.bytes));
        if inside { Ok(tensor) } else { Err(tensor.outside()) }
    }

    /// One past the last element in the storage; nothing where the numbers make no sense.
    fn end(&self) -> Option<i64> {
        let sizes = self.shape.iter().chain(&self.stride).chain([&self.offset]);
        if self.shape.len() != self.stride.len() || sizes.into_iter().any(|size| *size < 0) {
            return None;
        }
        let numel = self.shape.iter().try_fold(1i64, |product, size| product.checked_mul(*size))?;
        if numel == 0 {
            return Some(0);
        }
        let mut last = self.offset;
        for (size, stride) in self.shape.iter().zip(&self.stride) {
            last = last.checked_add((size - 1).checked_mul(*stride)?)?;
        }
        let end = last.checked_add(1)?;
        end.checked_mul(self.kind.elt_size_in_bytes() as i64).map(|_| end)
    }

    fn outside(&self) -> Problem {
        Problem::View {
            shape: self.shape.clone(),
            stride: self.stride.clone(),
            offset: self.offset,
            elements: self.storage.bytes / self.kind.elt_size_in_bytes() as u64,
        }
    }

    /// Element type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Shape.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Strides, in elements.
    pub fn stride(&self) -> &[i64] {
        &self.stride
    }

    /// Start in the storage, in elements.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// The bytes that it looks at.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Whether both are the same numbers in the same place, as tied weights are.
    pub fn same_as(&self, other: &TensorRef) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.offset == other.offset
            && self.shape == other.shape
            && self.stride == other.stride
            && self.kind == other.kind
    }

    /// Reads the tensor onto `device`. It shares no memory with other tensors, even where they share
    /// a storage in the file; its strides are those in the file.
    pub fn load(&self, device: Device) -> Result<Tensor, Error> {
        tch::no_grad(|| self.materialise(device)).map_err(|problem| Error::new(&self.storage.path, problem))
    }

    fn materialise(&self, device: Device) -> Result<Tensor, Problem> {
        if self.numel() == 0 {
            return Ok(Tensor::f_empty(&self.shape, (self.kind, device))?);
        }
        let end = self.end().ok_or_else(|| self.outside())?;
        let mut at = self.offset as u64 * self.kind.elt_size_in_bytes() as u64;
        let line = torch_ext::filled(end - self.offset, self.kind, |piece| {
            self.storage.read(at, piece)?;
            at += piece.len() as u64;
            Ok::<_, Problem>(())
        })?;
        let line = line.f_to_device(device)?;
        Ok(line.f_as_strided(&self.shape, &self.stride, 0)?)
    }
}
