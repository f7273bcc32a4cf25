//! Renders a tree as `golden/pth_describe.py` does.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use model::pth::{TensorValue, Value, kind_name};
use serde_json::{Value as Json, json};
use tch::{Device, Kind};

pub fn render(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(truth) => json!(truth),
        Value::Int(number) => json!({"int": number.to_string()}),
        Value::BigInt(number) => json!({"int": big(&number.0)}),
        Value::Float(number) => json!({"float": hex(&number.to_be_bytes())}),
        Value::Str(text) => json!(&**text),
        Value::Bytes(bytes) => json!({"bytes": hex(bytes)}),
        Value::List(items) => items.iter().map(render).collect(),
        Value::Tuple(items) => json!({"tuple": items.iter().map(render).collect::<Vec<_>>()}),
        Value::Dict(dict) => {
            let entries: Vec<_> = dict.iter().map(|(key, value)| json!([render(key), render(value)])).collect();
            json!({"dict": entries, "ordered": dict.is_ordered()})
        }
        Value::Dtype(kind) => json!({"dtype": kind_name(*kind)}),
        Value::Device(device) => json!({"device": &**device}),
        Value::Tensor(value) => tensor(value),
    }
}

fn tensor(value: &TensorValue) -> Json {
    let loaded = value.load(Device::Cpu).unwrap();
    assert_eq!(loaded.kind(), value.kind());
    let raw = if loaded.kind() == Kind::Bool { loaded.to_kind(Kind::Uint8) } else { loaded.shallow_clone() };
    let mut bytes = vec![0; raw.numel() * raw.kind().elt_size_in_bytes()];
    if !bytes.is_empty() {
        raw.copy_data_u8(&mut bytes, raw.numel());
    }
    json!({
        "tensor": kind_name(loaded.kind()),
        "shape": loaded.size(),
        "stride": if bytes.is_empty() { vec![] } else { loaded.stride() },
        "bytes": hex(&bytes),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decimal digits of a number in two's complement, by way of `i128`.
fn big(bytes: &[u8]) -> String {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(wide).to_string()
}
