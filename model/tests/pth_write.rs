//! Files written here, read by PyTorch (`golden/pth_check.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod python;
mod render;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use model::pth::{self, Dict, File, TensorValue, Value};
use serde_json::Value as Json;
use tch::{Device, Kind, Tensor};

fn check(paths: &[&Path]) -> Vec<Json> {
    python::run("pth_check.py", paths).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn values() -> Dict {
    let mut root = Dict::new();
    root.insert("none", Value::None);
    root.insert("truth", vec![Value::Bool(true), Value::Bool(false)]);
    let ints = [0, 1, -1, 255, 256, 65536, i64::from(i32::MAX), i64::from(i32::MIN), 1 << 31, i64::MAX, i64::MIN];
    root.insert("ints", ints.into_iter().map(Value::Int).collect::<Vec<_>>());
    root.insert("big", vec![Value::from(u64::MAX), Value::from(1u64 << 63)]);
    root.insert("floats", [0.0, -0.0, 1e-5, f64::INFINITY, 0.1].into_iter().map(Value::Float).collect::<Vec<_>>());
    root.insert("text", vec![Value::from(""), Value::from("é€𝄞")]);
    root.insert("bytes", vec![Value::Bytes([].into()), Value::from((0..=255).collect::<Vec<u8>>())]);
    root.insert("tuple", Value::Tuple(vec![Value::Tuple(vec![]), Value::Int(1)]));
    root.insert("dtype", Value::Dtype(Kind::BFloat16));
    root.insert("device", vec![Value::Device("cpu".into()), Value::Device("cuda:1".into())]);
    let mut inner = Dict::ordered();
    inner.insert(7i64, Dict::new());
    inner.insert("empty", Vec::<Value>::new());
    root.insert("inner", inner);
    root
}

fn tensors() -> Dict {
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]);
    let mut root = Dict::new();
    root.insert("base", &base);
    root.insert("tied", &base);
    root.insert("transposed", base.tr());
    root.insert("row", base.get(2));
    root.insert("scalar", Tensor::from(3.5f32));
    root.insert("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)));
    root.insert("learned", Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true));
    let kinds = [Kind::Half, Kind::BFloat16, Kind::Double, Kind::Int64, Kind::Int, Kind::Int16, Kind::Int8];
    for kind in kinds.into_iter().chain([Kind::Uint8, Kind::Bool, Kind::ComplexFloat, Kind::Float8e4m3fn]) {
        root.insert(pth::kind_name(kind), Tensor::from_slice(&[0f32, 1.0, 2.0]).to_kind(kind));
    }
    root.insert("large", Tensor::arange(140_001, (Kind::Int64, Device::Cpu)));
    root
}

#[test]
fn torch_reads_what_is_written_here() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("values.pth"), folder.path().join("tensors.pth")];
    let roots = [Value::from(values()), Value::from(tensors())];
    for (path, root) in paths.iter().zip(&roots) {
        pth::write(path, root).unwrap();
    }
    let read = check(&[&paths[0], &paths[1]]);
    assert_eq!(read[0]["holds"], render::render(&roots[0]));
    // A transposed tensor is written in its own order of elements; everything else stays as it is.
    let Value::Dict(mut expected) = roots[1].clone() else { panic!() };
    let transposed = expected.remove("transposed").unwrap();
    let as_written = transposed.as_tensor().unwrap().load(Device::Cpu).unwrap().contiguous();
    let found = read[1]["holds"]["dict"].as_array().unwrap();
    assert_eq!(found[2][1], render::render(&as_written.into()));
    let rest: Vec<_> = found.iter().filter(|entry| entry[0] != "transposed").cloned().collect();
    assert_eq!(Json::from(rest), render::render(&expected.into())["dict"]);
    assert_eq!(read[1]["shared"], serde_json::json!([["base", "tied"]]), "tied tensors are one storage");
}

#[test]
fn a_file_copied_from_a_file_keeps_views_and_shared_storages() {
    let folder = tempfile::tempdir().unwrap();
    python::run("pth_files.py", &[folder.path()]);
    let names = ["views.pth", "dtypes.pth", "values.pth", "big.pth"];
    let originals = names.map(|name| File::open(&folder.path().join(name)).unwrap());
    let copies = names.map(|name| folder.path().join(format!("copy of {name}")));
    for (original, copy) in originals.iter().zip(&copies) {
        pth::write(copy, original.root()).unwrap();
    }
    let read = check(&copies.each_ref().map(|path| path.as_path()));
    for (original, copy) in originals.iter().zip(&read) {
        assert_eq!(copy["holds"], render::render(original.root()), "{}", original.path().display());
    }
    assert_eq!(read[0]["records"], 4, "as many storages as before");
}

#[test]
fn a_cast_is_written_in_the_type_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut root = Dict::new();
    root.insert("a", Tensor::from_slice(&[1.0f32, 1.0 / 3.0, 70000.0]));
    pth::write(&path("a.pth"), &root.into()).unwrap();
    let file = File::open(&path("a.pth")).unwrap();
    let Some(Value::Tensor(TensorValue::Stored(stored))) = file.root().get("a").cloned() else { panic!() };
    let mut root = Dict::new();
    root.insert("a", TensorValue::Cast(stored.clone(), Kind::BFloat16));
    root.insert("tied", TensorValue::Cast(stored, Kind::BFloat16));
    pth::write(&path("b.pth"), &root.clone().into()).unwrap();
    let read = check(&[&path("b.pth")]);
    assert_eq!(read[0]["holds"], render::render(&root.into()));
    assert_eq!(read[0]["records"], 1);
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    pth::write(&path, &values().into()).unwrap();
    let before = fs::read(&path).unwrap();
    // This tree reads from a file that has lost its end since it was opened.
    let source = folder.path().join("source.pth");
    pth::write(&source, &tensors().into()).unwrap();
    let broken = File::open(&source).unwrap().into_root();
    fs::OpenOptions::new().write(true).open(&source).unwrap().set_len(1000).unwrap();
    let error = pth::write(&path, &broken).unwrap_err();
    assert!(error.to_string().contains("source.pth: cannot read"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o600, 0o600);
    let error = pth::write(&folder.path().join("nowhere/weights.pth"), &values().into()).unwrap_err();
    assert!(error.to_string().contains("nowhere/weights.pth: cannot write"), "{error}");
}

#[test]
fn the_same_tree_makes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("one.pth"), folder.path().join("two.pth")];
    for path in &paths {
        pth::write(path, &tensors().into()).unwrap();
    }
    assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
}
