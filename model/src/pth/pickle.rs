//! Writes an object tree as PyTorch's own pickler would: protocol 2, without the memo.

use std::{collections::HashMap, sync::Arc};

use tch::{Kind, Tensor};

use super::{
    Problem, dtype, opcode,
    storage::{Storage, TensorRef},
    value::{Dict, TensorValue, Value},
};

/// Where the bytes of a record come from.
pub(super) enum Source {
    /// A record of another file, as it is.
    Record(Arc<Storage>),
    /// The elements of a tensor, one after the other.
    Tensor(TensorValue),
}

/// A pickle, and the records that it speaks of: `data/0`, `data/1`, …
pub(super) struct Pickled {
    pub bytes: Vec<u8>,
    pub sources: Vec<Source>,
}

/// Pickles a tree.
pub(super) fn pickle(value: &Value) -> Result<Pickled, Problem> {
    let mut pickler = Pickler { bytes: vec![opcode::PROTO, 2], sources: Vec::new(), keys: HashMap::new() };
    pickler.value(value, 0)?;
    pickler.bytes.push(opcode::STOP);
    Ok(Pickled { bytes: pickler.bytes, sources: pickler.sources })
}

/// What makes two tensors share a record.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Record(*const Storage),
    Cast(*const Storage, i64, Vec<i64>, Vec<i64>, Kind),
    Memory(usize, usize, Kind),
}

struct Pickler {
    bytes: Vec<u8>,
    sources: Vec<Source>,
    keys: HashMap<Identity, usize>,
}

impl Pickler {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Problem> {
        if depth > 100 {
            return Err(Problem::Unwritable("the tree is nested too deep".into()));
        }
        match value {
            Value::None => self.bytes.push(opcode::NONE),
            Value::Bool(true) => self.bytes.push(opcode::NEWTRUE),
            Value::Bool(false) => self.bytes.push(opcode::NEWFALSE),
            Value::Int(number) => self.int(*number),
            Value::BigInt(long) => match u8::try_from(long.0.len()) {
                Ok(len) => {
                    self.bytes.extend([opcode::LONG1, len]);
                    self.bytes.extend_from_slice(&long.0);
                }
                Err(_) => return Err(Problem::Unwritable("a whole number has more than 255 bytes".into())),
            },
            Value::Float(number) => {
                self.bytes.push(opcode::BINFLOAT);
                self.bytes.extend(number.to_be_bytes());
            }
            Value::Str(text) => self.text(text)?,
            Value::Bytes(bytes) => self.raw(bytes)?,
            Value::List(items) => {
                self.bytes.extend([opcode::EMPTY_LIST, opcode::MARK]);
                self.items(items, depth)?;
                self.bytes.push(opcode::APPENDS);
            }
            Value::Tuple(items) => {
                self.bytes.push(opcode::MARK);
                self.items(items, depth)?;
                self.bytes.push(opcode::TUPLE);
            }
            Value::Dict(dict) => self.dict(dict, depth)?,
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Dtype(kind) => self.global("torch", dtype::name(*kind)),
            Value::Device(device) => self.device(device)?,
        }
        Ok(())
    }

    fn items(&mut self, items: &[Value], depth: usize) -> Result<(), Problem> {
        items.iter().try_for_each(|item| self.value(item, depth + 1))
    }

    fn dict(&mut self, dict: &Dict, depth: usize) -> Result<(), Problem> {
        if dict.is_ordered() {
            self.global("collections", "OrderedDict");
            self.bytes.extend([opcode::EMPTY_TUPLE, opcode::REDUCE]);
        } else {
            self.bytes.push(opcode::EMPTY_DICT);
        }
        self.bytes.push(opcode::MARK);
        for (key, value) in dict.iter() {
            self.value(key, depth + 1)?;
            self.value(value, depth + 1)?;
        }
        self.bytes.push(opcode::SETITEMS);
        Ok(())
    }

    fn int(&mut self, number: i64) {
        if let Ok(small) = u8::try_from(number) {
            self.bytes.extend([opcode::BININT1, small]);
        } else if let Ok(small) = i32::try_from(number) {
            self.bytes.push(opcode::BININT);
            self.bytes.extend(small.to_le_bytes());
        } else {
            self.bytes.extend([opcode::LONG1, 8]);
            self.bytes.extend(number.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Problem> {
        let Ok(len) = u32::try_from(text.len()) else {
            return Err(Problem::Unwritable("a text has more than 4 GB".into()));
        };
        self.bytes.push(opcode::BINUNICODE);
        self.bytes.extend(len.to_le_bytes());
        self.bytes.extend(text.as_bytes());
        Ok(())
    }

    /// Protocol 2 has no bytes; Python 3 writes them as a text to be encoded.
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let text: String = bytes.iter().copied().map(char::from).collect();
        self.global("_codecs", "encode");
        self.bytes.push(opcode::MARK);
        self.text(&text)?;
        self.text("latin1")?;
        self.bytes.extend([opcode::TUPLE, opcode::REDUCE]);
        Ok(())
    }

    fn device(&mut self, device: &str) -> Result<(), Problem> {
        self.global("torch", "device");
        self.bytes.push(opcode::MARK);
        match device.split_once(':').and_then(|(kind, index)| Some((kind, index.parse().ok()?))) {
            Some((kind, index)) => {
                self.text(kind)?;
                self.int(index);
            }
            None => self.text(device)?,
        }
        self.bytes.extend([opcode::TUPLE, opcode::REDUCE]);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) {
        self.bytes.push(opcode::GLOBAL);
        self.bytes.extend(format!("{module}\n{name}\n").bytes());
    }

    fn tensor(&mut self, tensor: &TensorValue) -> Result<(), Problem> {
        match tensor {
            TensorValue::Stored(stored) => {
                let storage = stored.storage();
                let identity = Identity::Record(Arc::as_ptr(storage));
                let key = self.key(Some(identity), || Source::Record(storage.clone()));
                let width = stored.kind().elt_size_in_bytes() as u64;
                let view = View {
                    kind: stored.kind(),
                    offset: stored.offset(),
                    shape: stored.shape(),
                    stride: stored.stride(),
                };
                self.rebuild(key, storage.bytes() / width, storage.bytes(), &view)
            }
            TensorValue::Cast(stored, kind) => {
                let key = self.key(Some(cast_identity(stored, *kind)), || Source::Tensor(tensor.clone()));
                self.whole(key, *kind, stored.shape())
            }
            TensorValue::Loaded(loaded) => {
                let (kind, shape) = (loaded.f_kind()?, loaded.size());
                if loaded.is_sparse() || loaded.is_mkldnn() || dtype::name(kind) == "quantized" {
                    return Err(Problem::Unwritable("a tensor is sparse or quantized".into()));
                }
                let key = self.key(memory_identity(loaded, kind), || Source::Tensor(tensor.clone()));
                self.whole(key, kind, &shape)
            }
        }
    }

    /// The number of the record with this identity.
    fn key(&mut self, identity: Option<Identity>, source: impl FnOnce() -> Source) -> usize {
        let fresh = self.sources.len();
        let key = match identity {
            Some(identity) => *self.keys.entry(identity).or_insert(fresh),
            None => fresh,
        };
        if key == fresh {
            self.sources.push(source());
        }
        key
    }

    /// A tensor that has its record to itself, or shares it with its equals.
    fn whole(&mut self, key: usize, kind: Kind, shape: &[i64]) -> Result<(), Problem> {
        let numel = shape.iter().product::<i64>() as u64;
        let mut stride = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            stride[axis - 1] = stride[axis] * shape[axis].max(1);
        }
        let view = View { kind, offset: 0, shape, stride: &stride };
        self.rebuild(key, numel, numel * kind.elt_size_in_bytes() as u64, &view)
    }

    fn rebuild(&mut self, key: usize, numel: u64, bytes: u64, view: &View<'_>) -> Result<(), Problem> {
        let class = dtype::storage(view.kind);
        let rebuild = if class.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" };
        self.global("torch._utils", rebuild);
        self.bytes.extend([opcode::MARK, opcode::MARK]);
        self.text("storage")?;
        match class {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        self.text(&key.to_string())?;
        self.text("cpu")?;
        self.int(if class.is_some() { numel } else { bytes } as i64);
        self.bytes.extend([opcode::TUPLE, opcode::BINPERSID]);
        self.int(view.offset);
        self.ints(view.shape);
        self.ints(view.stride);
        self.bytes.push(opcode::NEWFALSE);
        self.global("collections", "OrderedDict");
        self.bytes.extend([opcode::EMPTY_TUPLE, opcode::REDUCE]);
        if class.is_none() {
            self.global("torch", dtype::name(view.kind));
        }
        self.bytes.extend([opcode::TUPLE, opcode::REDUCE]);
        Ok(())
    }

    fn ints(&mut self, numbers: &[i64]) {
        self.bytes.push(opcode::MARK);
        numbers.iter().for_each(|number| self.int(*number));
        self.bytes.push(opcode::TUPLE);
    }
}

struct View<'a> {
    kind: Kind,
    offset: i64,
    shape: &'a [i64],
    stride: &'a [i64],
}

fn cast_identity(stored: &TensorRef, kind: Kind) -> Identity {
    let (shape, stride) = (stored.shape().to_vec(), stored.stride().to_vec());
    Identity::Cast(Arc::as_ptr(stored.storage()), stored.offset(), shape, stride, kind)
}

/// Two tensors over the same memory are one record; a view of a part is a record of its own.
fn memory_identity(tensor: &Tensor, kind: Kind) -> Option<Identity> {
    let numel = tensor.numel();
    (numel > 0 && tensor.is_contiguous()).then(|| Identity::Memory(tensor.data_ptr() as usize, numel, kind))
}
