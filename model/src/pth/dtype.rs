//! Names of element types in PyTorch's pickles.

use tch::Kind;

/// Element type, `torch.NAME`, and `torch.NAMEStorage` where PyTorch has such a class.
const TABLE: [(Kind, &str, Option<&str>); 17] = [
    (Kind::Float, "float32", Some("FloatStorage")),
    (Kind::Half, "float16", Some("HalfStorage")),
    (Kind::BFloat16, "bfloat16", Some("BFloat16Storage")),
    (Kind::Double, "float64", Some("DoubleStorage")),
    (Kind::Int64, "int64", Some("LongStorage")),
    (Kind::Int, "int32", Some("IntStorage")),
    (Kind::Int16, "int16", Some("ShortStorage")),
    (Kind::Int8, "int8", Some("CharStorage")),
    (Kind::Uint8, "uint8", Some("ByteStorage")),
    (Kind::Bool, "bool", Some("BoolStorage")),
    (Kind::ComplexFloat, "complex64", Some("ComplexFloatStorage")),
    (Kind::ComplexDouble, "complex128", Some("ComplexDoubleStorage")),
    (Kind::ComplexHalf, "complex32", None),
    (Kind::Float8e4m3fn, "float8_e4m3fn", None),
    (Kind::Float8e5m2, "float8_e5m2", None),
    (Kind::Float8e4m3fnuz, "float8_e4m3fnuz", None),
    (Kind::Float8e5m2fnuz, "float8_e5m2fnuz", None),
];

/// Names of element types that PyTorch has and `tch` has not.
const UNSUPPORTED: [&str; 10] = [
    "uint16",
    "uint32",
    "uint64",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
    "QInt8Storage",
    "QUInt8Storage",
    "QInt32Storage",
    "QUInt4x2Storage",
    "QUInt2x4Storage",
];

/// PyTorch's name of an element type: `float32`, `bfloat16`, `int64`, …
pub fn name(kind: Kind) -> &'static str {
    TABLE.iter().find(|row| row.0 == kind).map_or("quantized", |row| row.1)
}

/// The element type of PyTorch's name; `half`, `float`, `double`, `long`, `fp32`, `fp16` and `bf16` too.
pub fn from_name(name: &str) -> Option<Kind> {
    let name = match name {
        "half" | "fp16" => "float16",
        "float" | "fp32" => "float32",
        "double" => "float64",
        "long" => "int64",
        "int" => "int32",
        "bf16" => "bfloat16",
        _ => name,
    };
    TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
}

/// The element type of a typed storage class.
pub(super) fn from_storage(class: &str) -> Option<Kind> {
    TABLE.iter().find(|row| row.2 == Some(class)).map(|row| row.0)
}

/// The typed storage class of an element type.
pub(super) fn storage(kind: Kind) -> Option<&'static str> {
    TABLE.iter().find(|row| row.0 == kind).and_then(|row| row.2)
}

pub(super) fn known_but_unsupported(name: &str) -> bool {
    UNSUPPORTED.contains(&name)
}

/// How wide the numbers are that a change of byte order turns around.
pub(super) fn swap_width(kind: Kind) -> usize {
    match kind {
        Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble => kind.elt_size_in_bytes() / 2,
        _ => kind.elt_size_in_bytes(),
    }
}
