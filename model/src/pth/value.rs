//! The object tree of a `.pth` file.

use std::{fmt, path::Path, sync::Arc};

use tch::{Device, Kind, Tensor};

use super::{Problem, storage::TensorRef};

/// One Python object of a checkpoint.
#[derive(Debug, Clone)]
pub enum Value {
    /// `None`.
    None,
    /// `bool`.
    Bool(bool),
    /// `int` that fits 64 bits.
    Int(i64),
    /// `int` that does not.
    BigInt(BigInt),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(Arc<str>),
    /// `bytes`.
    Bytes(Arc<[u8]>),
    /// `list`.
    List(Vec<Value>),
    /// `tuple`, or `torch.Size`.
    Tuple(Vec<Value>),
    /// `dict`, `collections.OrderedDict` or `collections.Counter`.
    Dict(Dict),
    /// `torch.Tensor` or `torch.nn.Parameter`.
    Tensor(TensorValue),
    /// `torch.dtype`.
    Dtype(Kind),
    /// `torch.device`, as PyTorch prints it (`cpu`, `cuda:0`).
    Device(Arc<str>),
}

/// A whole number of any size: two's complement, little-endian, as pickle writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BigInt(pub Arc<[u8]>);

/// A tensor, wherever it is.
pub enum TensorValue {
    /// In a file.
    Stored(Arc<TensorRef>),
    /// In a file, to be written as another type of numbers.
    Cast(Arc<TensorRef>, Kind),
    /// In memory, on any device.
    Loaded(Tensor),
}

impl TensorValue {
    /// Shape of the tensor.
    pub fn shape(&self) -> Vec<i64> {
        match self {
            TensorValue::Stored(tensor) | TensorValue::Cast(tensor, _) => tensor.shape().to_vec(),
            TensorValue::Loaded(tensor) => tensor.size(),
        }
    }

    /// Element type of the tensor.
    pub fn kind(&self) -> Kind {
        match self {
            TensorValue::Stored(tensor) => tensor.kind(),
            TensorValue::Cast(_, kind) => *kind,
            TensorValue::Loaded(tensor) => tensor.kind(),
        }
    }

    /// The number of a tensor with one element; not a number if it has another count.
    pub fn scalar(&self) -> Result<f64, super::Error> {
        let tensor = self.load(Device::Cpu)?;
        let number = tensor.f_view([-1]).and_then(|line| line.f_double_value(&[0]));
        Ok(number.ok().filter(|_| tensor.numel() == 1).unwrap_or(f64::NAN))
    }

    /// The tensor itself, on `device`; a tensor that is there already is shared, not copied.
    pub fn load(&self, device: Device) -> Result<Tensor, super::Error> {
        let torch = |path: &Path| {
            let path = path.to_path_buf();
            move |error| super::Error::new(&path, Problem::Torch(error))
        };
        match self {
            TensorValue::Stored(tensor) => tensor.load(device),
            TensorValue::Cast(tensor, kind) => {
                let cast = tensor.load(Device::Cpu)?.f_to_kind(*kind).and_then(|cast| cast.f_to_device(device));
                cast.map_err(torch(tensor.storage().path()))
            }
            TensorValue::Loaded(tensor) => tensor.f_to_device(device).map_err(torch(Path::new("a tensor in memory"))),
        }
    }
}

impl Clone for TensorValue {
    fn clone(&self) -> Self {
        match self {
            TensorValue::Stored(tensor) => TensorValue::Stored(tensor.clone()),
            TensorValue::Cast(tensor, kind) => TensorValue::Cast(tensor.clone(), *kind),
            TensorValue::Loaded(tensor) => TensorValue::Loaded(tensor.shallow_clone()),
        }
    }
}

impl fmt::Debug for TensorValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}, {:?})", super::dtype::name(self.kind()), self.shape())
    }
}

/// Entries in the order in which they were put in.
#[derive(Debug, Clone, Default)]
pub struct Dict {
    entries: Vec<(Value, Value)>,
    ordered: bool,
}

impl Dict {
    /// A `dict`.
    pub fn new() -> Self {
        Self::default()
    }

    /// A `collections.OrderedDict`.
    pub fn ordered() -> Self {
        Self { entries: Vec::new(), ordered: true }
    }

    /// Whether this is a `collections.OrderedDict`.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Adds an entry at the end; the key must be new.
    pub fn insert(&mut self, key: impl Into<Value>, value: impl Into<Value>) {
        self.entries.push((key.into(), value.into()));
    }

    /// The entry of a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
    }

    /// Takes out the entry of a text key.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(k, _)| k.as_str() == Some(key))?;
        Some(self.entries.remove(at).1)
    }

    /// All entries.
    pub fn iter(&self) -> std::slice::Iter<'_, (Value, Value)> {
        self.entries.iter()
    }

    /// The entries with a text key.
    pub fn text_entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().filter_map(|(k, v)| Some((k.as_str()?, v)))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn from_entries(entries: Vec<(Value, Value)>, ordered: bool) -> Self {
        Self { entries, ordered }
    }
}

impl Value {
    /// The text of a `str`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an `int` that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The number of an `int` that fits without a sign.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::BigInt(BigInt(bytes)) => match bytes.split_at_checked(8)? {
                (low, [0]) => Some(u64::from_le_bytes(low.try_into().ok()?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The number of an `int` or `float`.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth of a `bool`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The bytes of a `bytes`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of a `list` or `tuple`.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) | Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dict.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// The tensor.
    pub fn as_tensor(&self) -> Option<&TensorValue> {
        match self {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The entry of a text key, if this is a dict that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_dict()?.get(key)
    }

    /// A whole number from its two's complement, little-endian.
    pub(super) fn from_long(bytes: &[u8]) -> Value {
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        if bytes.len() > 8 && bytes[8..].iter().any(|byte| *byte != fill)
            || bytes.len() > 8 && (bytes[7] & 0x80 != 0) != negative
        {
            return Value::BigInt(BigInt(bytes.into()));
        }
        let mut word = [fill; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        Value::Int(i64::from_le_bytes(word))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        let mut bytes = value.to_le_bytes().to_vec();
        bytes.push(0);
        Value::from_long(&bytes)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Str(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Str(value.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Value::Bytes(value.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Self {
        Value::List(value)
    }
}

impl From<Dict> for Value {
    fn from(value: Dict) -> Self {
        Value::Dict(value)
    }
}

impl From<Tensor> for Value {
    fn from(value: Tensor) -> Self {
        Value::Tensor(TensorValue::Loaded(value))
    }
}

impl From<&Tensor> for Value {
    fn from(value: &Tensor) -> Self {
        Value::Tensor(TensorValue::Loaded(value.shallow_clone()))
    }
}

impl From<TensorValue> for Value {
    fn from(value: TensorValue) -> Self {
        Value::Tensor(value)
    }
}

impl From<Arc<TensorRef>> for Value {
    fn from(value: Arc<TensorRef>) -> Self {
        Value::Tensor(TensorValue::Stored(value))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::None, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_keep_their_sign_and_size() {
        assert_eq!(Value::from_long(&[]).as_i64(), Some(0));
        assert_eq!(Value::from_long(&[0xff]).as_i64(), Some(-1));
        assert_eq!(Value::from_long(&[0xff, 0]).as_i64(), Some(255));
        assert_eq!(Value::from_long(&i64::MIN.to_le_bytes()).as_i64(), Some(i64::MIN));
        assert_eq!(Value::from(7u64).as_i64(), Some(7));
        assert!(matches!(Value::from(u64::MAX), Value::BigInt(_)));
        assert!(matches!(Value::from(1u64 << 63), Value::BigInt(_)));
        assert_eq!(Value::from(u64::MAX).as_u64(), Some(u64::MAX));
        assert_eq!(Value::from(-1i64).as_u64(), None);
    }
}
