//! Hugging Face's safetensors, in and out.

use std::{borrow::Cow, cell::RefCell, collections::HashMap, fs::File, io::Read, path::Path, sync::Arc};

use notation::files::{Flush, write_atomically};
use safetensors::{Dtype, SafeTensorError, View, tensor::Metadata};
use tch::{Device, Kind};

use super::Error;
use crate::pth::{self, Dict, Failure, Problem, Storage, TensorRef, TensorValue, Value};

/// Longest header that is read, in bytes: the format's own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// Entries of a checkpoint that survive as text in the metadata.
pub(super) const NUMBERS: [&str; 3] = ["epoch", "best_epoch", "min_eval_loss"];

type Tensors = Vec<(String, Arc<TensorRef>)>;

const KINDS: [(Dtype, Kind); 12] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F64, Kind::Double),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
    (Dtype::F8_E4M3, Kind::Float8e4m3fn),
    (Dtype::F8_E5M2, Kind::Float8e5m2),
];

/// The tensors of a file, and its metadata: numbers under their own names, the rest as `metadata`.
pub(super) fn open(path: &Path) -> Result<(Tensors, Dict), Error> {
    let (start, header, file) = read_header(path).map_err(|problem| match problem {
        Trouble::File(problem) => pth::Error::new(path, problem).into(),
        Trouble::Content(what) => Error::SafeTensors { path: path.to_path_buf(), what },
    })?;
    let file = Arc::new(file);
    let shared: Arc<Path> = path.into();
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let tensor = KINDS.iter().find(|(dtype, _)| *dtype == info.dtype).map_or_else(
            || Err(Problem::Dtype { name: format!("{:?}", info.dtype) }),
            |(_, kind)| {
                let shape: Vec<i64> = info.shape.iter().map(|size| i64::try_from(*size).unwrap_or(-1)).collect();
                let (from, to) = info.data_offsets;
                let (start, bytes) = (start + from as u64, (to - from) as u64);
                let storage = Storage::new(file.clone(), shared.clone(), name.clone(), start, bytes);
                TensorRef::new(*kind, shape.clone(), contiguous(&shape), 0, Arc::new(storage))
            },
        );
        tensors.push((name, Arc::new(tensor.map_err(|problem| pth::Error::new(path, problem))?)));
    }
    Ok((tensors, rest(header.metadata())))
}

enum Trouble {
    File(Problem),
    Content(String),
}

fn read_header(path: &Path) -> Result<(u64, Metadata, File), Trouble> {
    let read = |action| move |source| Trouble::File(Problem::Io { action, source });
    let mut file = File::open(path).map_err(read("open"))?;
    let len = file.metadata().map_err(read("look at"))?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(read("read"))?;
    let size = u64::from_le_bytes(size);
    if size > HEADER_LIMIT {
        let what = "the safetensors header is too long";
        return Err(Trouble::File(Problem::Limit { what, limit: HEADER_LIMIT }));
    }
    let start = size + 8;
    if start > len {
        return Err(Trouble::Content(format!("the safetensors file is truncated: it has {len} bytes")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(read("read"))?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| Trouble::Content(format!("the safetensors header is damaged: {error}")))?;
    let end = start.saturating_add(header.data_len() as u64);
    match len.cmp(&end) {
        std::cmp::Ordering::Equal => Ok((start, header, file)),
        std::cmp::Ordering::Less => {
            Err(Trouble::Content(format!("the safetensors file is truncated: it has {len} bytes of {end}")))
        }
        std::cmp::Ordering::Greater => {
            Err(Trouble::Content(format!("the safetensors file has {} bytes too many", len - end)))
        }
    }
}

fn contiguous(shape: &[i64]) -> Vec<i64> {
    let mut stride = vec![1i64; shape.len()];
    for axis in (1..shape.len()).rev() {
        stride[axis - 1] = stride[axis].saturating_mul(shape[axis].max(1));
    }
    stride
}

fn rest(metadata: &Option<HashMap<String, String>>) -> Dict {
    let mut rest = Dict::new();
    let mut texts: Vec<_> = metadata.iter().flatten().filter(|(key, _)| *key != "format").collect();
    texts.sort();
    let mut others = Dict::new();
    for (key, text) in texts {
        match (NUMBERS.contains(&key.as_str()), text.parse::<i64>(), text.parse::<f64>()) {
            (true, Ok(number), _) => rest.insert(key.as_str(), number),
            (true, _, Ok(number)) => rest.insert(key.as_str(), number),
            _ => others.insert(key.as_str(), text.as_str()),
        }
    }
    if !others.is_empty() {
        rest.insert("metadata", others);
    }
    rest
}

/// Writes tensors, one at a time, and text about them.
pub(super) fn write(
    path: &Path,
    tensors: Vec<(String, TensorValue)>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let failed = RefCell::new(None);
    let outcome = write_atomically(path, Flush::Now, |file| {
        let mut views = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            views.push((name, Lazy::new(tensor, &failed)?));
        }
        let written = tch::no_grad(|| safetensors::serialize_to_file(views, Some(metadata), file.path()));
        match (failed.take(), written) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(()),
            (None, Err(SafeTensorError::IoError(source))) => {
                Err(Failure::Here(Problem::Io { action: "write", source }))
            }
            (None, Err(other)) => Err(Failure::Here(Problem::Unwritable(other.to_string()))),
        }
    });
    outcome.map_err(|failure| match failure {
        Failure::Here(problem) => pth::Error::new(path, problem).into(),
        Failure::There(error) => error.into(),
    })
}

/// A tensor that is read when its turn comes. `View` has no way to fail, so a failure is put aside.
struct Lazy<'a> {
    tensor: TensorValue,
    dtype: Dtype,
    shape: Vec<usize>,
    failed: &'a RefCell<Option<Failure>>,
}

impl<'a> Lazy<'a> {
    fn new(tensor: TensorValue, failed: &'a RefCell<Option<Failure>>) -> Result<Self, Failure> {
        let kind = tensor.kind();
        let Some((dtype, _)) = KINDS.iter().find(|(_, known)| *known == kind) else {
            let name = pth::kind_name(kind);
            return Err(Failure::Here(Problem::Unwritable(format!("safetensors has no type {name}"))));
        };
        let shape = tensor.shape().iter().map(|size| *size as usize).collect();
        Ok(Self { tensor, dtype: *dtype, shape, failed })
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        let loaded = self.tensor.load(Device::Cpu).map_err(Failure::There)?;
        let mut bytes = Vec::with_capacity(self.data_len());
        pth::elements(&loaded, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.failed.borrow().is_some() {
            return Cow::Borrowed(&[]);
        }
        match self.bytes() {
            Ok(bytes) => Cow::Owned(bytes),
            Err(failure) => {
                self.failed.replace(Some(failure));
                Cow::Borrowed(&[])
            }
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// The entries of a checkpoint that go into the metadata, and the metadata of the file it came from.
pub(super) fn metadata(rest: &Dict) -> HashMap<String, String> {
    let mut metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let inherited = rest.get("metadata").and_then(Value::as_dict);
    for (key, value) in inherited.into_iter().flat_map(Dict::text_entries) {
        if let Some(text) = value.as_str() {
            metadata.insert(key.to_string(), text.to_string());
        }
    }
    for key in NUMBERS {
        let text = match rest.get(key) {
            Some(Value::Int(number)) => number.to_string(),
            Some(Value::Float(number)) => super::python_float(*number),
            _ => continue,
        };
        metadata.insert(key.to_string(), text);
    }
    metadata
}
