//! Files that PyTorch wrote (`golden/pth_files.py`), whole, strange and broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod python;
mod render;

use std::{fs, path::Path, sync::OnceLock};

use model::pth::{File, TensorValue, Value};
use serde_json::Value as Json;
use tch::Device;

struct Files {
    folder: tempfile::TempDir,
    manifest: Json,
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        python::run("pth_files.py", &[folder.path()]);
        let manifest = fs::read_to_string(folder.path().join("manifest.json")).unwrap();
        Files { folder, manifest: serde_json::from_str(&manifest).unwrap() }
    })
}

#[test]
fn every_file_of_torch_reads_as_torch_reads_it() {
    let files = files();
    let good = files.manifest["good"].as_array().unwrap();
    assert!(good.len() >= 10);
    for entry in good {
        let name = entry["file"].as_str().unwrap();
        let file = File::open(&files.folder.path().join(name)).unwrap();
        let found = render::render(file.root());
        assert_eq!(found, entry["holds"], "{name}");
    }
}

#[test]
fn every_other_file_is_refused_with_its_own_words() {
    let files = files();
    let bad = files.manifest["bad"].as_array().unwrap();
    assert!(bad.len() >= 40);
    for entry in bad {
        let name = entry["file"].as_str().unwrap();
        let error = File::open(&files.folder.path().join(name)).expect_err(name);
        let text = error.to_string();
        assert!(text.contains(entry["error"].as_str().unwrap()), "{name}: {text}");
        assert!(text.contains(name) && text.lines().count() == 1, "{name}: {text}");
    }
}

#[test]
fn a_shared_storage_is_shared_and_an_expanded_one_takes_no_memory() {
    let file = File::open(&files().folder.path().join("views.pth")).unwrap();
    let stored = |name: &str| match file.root().get(name) {
        Some(Value::Tensor(TensorValue::Stored(tensor))) => tensor.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert!(stored("base").same_as(&stored("same")));
    assert!(!stored("base").same_as(&stored("transposed")));
    assert!(std::sync::Arc::ptr_eq(stored("base").storage(), stored("columns").storage()));
    let expanded = stored("expanded").load(Device::Cpu).unwrap();
    assert_eq!(expanded.stride(), [0, 1]);
}

#[test]
fn truncations_and_flipped_bytes_are_errors_or_valid_and_never_a_crash() {
    let path = files().folder.path().join("views.pth");
    let whole = fs::read(&path).unwrap();
    let scratch = files().folder.path().join("fuzz.pth");
    let mut opened = 0;
    let mut attempt = |bytes: &[u8]| {
        fs::write(&scratch, bytes).unwrap();
        opened += usize::from(read_all(&scratch));
    };
    for len in (0..whole.len()).step_by(7) {
        attempt(&whole[..len]);
    }
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for round in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + round % 3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random % bytes.len() as u64) as usize;
            bytes[at] ^= (1 << (random >> 61)) as u8 | (random >> 32) as u8 & 0x81;
        }
        attempt(&bytes);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak < 2 << 20, "a damaged file of a few kB took {peak} kB");
    assert!(opened > 50, "only {opened} damaged files were still readable: is anything read at all?");
}

/// Reads everything in a file, except what a damaged shape would blow up.
fn read_all(path: &Path) -> bool {
    fn walk(value: &Value) -> bool {
        match value {
            Value::List(items) | Value::Tuple(items) => items.iter().all(walk),
            Value::Dict(dict) => dict.iter().all(|(key, value)| walk(key) && walk(value)),
            Value::Tensor(TensorValue::Stored(tensor)) => tensor.load(Device::Cpu).is_ok(),
            _ => true,
        }
    }
    File::open(path).is_ok_and(|file| walk(file.root()))
}
