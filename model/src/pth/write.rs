//! Writes a checkpoint that PyTorch opens, maps and trusts.

use std::{
    io::{BufWriter, Write},
    path::Path,
    sync::Arc,
};

use notation::files::{Flush, write_atomically};
use tch::{Device, Kind, Tensor};
use tempfile::NamedTempFile;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{
    Error, Problem, Value,
    container::PICKLE_LIMIT,
    error::io,
    pickle::{self, Source},
    storage::Storage,
};

/// The alignment of PyTorch's own files, in bytes.
const ALIGNMENT: u16 = 64;

const CHUNK: usize = 1 << 20;

/// Writes `value` to `path` as `torch.save` would; `torch.load(weights_only=True)` and
/// `torch.load(mmap=True)` open it. Tensors go out one at a time, from any device; equal tensors over
/// the same memory are one storage. The file appears under its name when it is whole.
///
/// # Errors
/// The disk's, a stored tensor's that cannot be read, and a tree that cannot be written.
pub fn write(path: &Path, value: &Value) -> Result<(), Error> {
    tch::no_grad(|| write_atomically(path, Flush::Now, |file| archive(file, value))).map_err(|problem| match problem {
        Failure::Here(problem) => Error::new(path, problem),
        Failure::There(error) => error,
    })
}

/// A failure of this file, or of another that is being read.
pub(crate) enum Failure {
    Here(Problem),
    There(Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Here(problem)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Here(io("write")(error))
    }
}

fn archive(file: &mut NamedTempFile, value: &Value) -> Result<(), Failure> {
    let pickled = pickle::pickle(value)?;
    if pickled.bytes.len() as u64 > PICKLE_LIMIT {
        let what = "the tree without its tensors is too large for data.pkl";
        return Err(Failure::Here(Problem::Limit { what, limit: PICKLE_LIMIT }));
    }
    let mut zip = ZipWriter::new(BufWriter::with_capacity(CHUNK, file));
    let mut put = |name: String, bytes: u64, write: &mut dyn FnMut(&mut dyn Write) -> Result<(), Failure>| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(bytes >= u32::MAX.into());
        zip.start_file(format!("archive/{name}"), options).map_err(damaged)?;
        write(&mut zip)
    };
    // No `.format_version`: with it PyTorch would compute the places of the storages from the habits
    // of its own writer instead of reading them.
    put("data.pkl".into(), pickled.bytes.len() as u64, &mut |out| out_all(out, &pickled.bytes))?;
    put("byteorder".into(), 6, &mut |out| out_all(out, b"little"))?;
    for (key, source) in pickled.sources.iter().enumerate() {
        put(format!("data/{key}"), size(source), &mut |out| stream(source, out))?;
    }
    put("version".into(), 2, &mut |out| out_all(out, b"3\n"))?;
    zip.finish().map_err(damaged)?.flush().map_err(io("write"))?;
    Ok(())
}

fn damaged(error: zip::result::ZipError) -> Failure {
    Failure::Here(match error {
        zip::result::ZipError::Io(error) => io("write")(error),
        other => Problem::Unwritable(other.to_string()),
    })
}

fn out_all(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes).map_err(|error| io("write")(error).into())
}

fn size(source: &Source) -> u64 {
    match source {
        Source::Record(storage) => storage.bytes(),
        Source::Tensor(tensor) => {
            tensor.shape().iter().product::<i64>() as u64 * tensor.kind().elt_size_in_bytes() as u64
        }
    }
}

fn stream(source: &Source, out: &mut dyn Write) -> Result<(), Failure> {
    match source {
        Source::Record(storage) => copy(storage, out),
        Source::Tensor(tensor) => {
            let tensor = tensor.load(Device::Cpu).map_err(Failure::There)?;
            elements(&tensor, &mut |bytes| out_all(out, bytes))
        }
    }
}

fn copy(storage: &Arc<Storage>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK.min(storage.bytes() as usize)];
    let mut done = 0;
    while done < storage.bytes() {
        let len = (storage.bytes() - done).min(CHUNK as u64) as usize;
        let bytes = &mut buffer[..len];
        storage.read(done, bytes).map_err(|problem| Failure::There(Error::new(storage.path(), problem)))?;
        out_all(out, bytes)?;
        done += len as u64;
    }
    Ok(())
}

/// Hands on the elements of a tensor in order, in pieces.
pub(crate) fn elements(tensor: &Tensor, take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let torch = |error: tch::TchError| Failure::Here(Problem::Torch(error));
    let line = tensor.f_contiguous().and_then(|t| t.f_view([-1])).map_err(torch)?;
    let kind = line.f_kind().map_err(torch)?;
    let line = if kind == Kind::Bool { line.f_to_kind(Kind::Uint8).map_err(torch)? } else { line };
    let width = kind.elt_size_in_bytes();
    let (len, step) = (line.numel() as i64, (CHUNK / width) as i64);
    let mut buffer = vec![0; width * step.min(len) as usize];
    let mut done = 0;
    while done < len {
        let count = step.min(len - done);
        let bytes = &mut buffer[..width * count as usize];
        let piece = line.f_narrow(0, done, count).map_err(torch)?;
        piece.f_copy_data_u8(bytes, count as usize).map_err(torch)?;
        take(bytes)?;
        done += count;
    }
    Ok(())
}
