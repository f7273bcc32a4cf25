//! `doctor`: what this machine has.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value, json};

use crate::{
    failure::Result,
    progress::{self, bytes},
    released::{self, WEIGHTS},
};

pub fn run(json: bool) -> Result<()> {
    let report = [
        ("libtorch", libtorch()),
        ("cpu", cpu()),
        ("cuda", cuda()),
        ("memory", memory()),
        ("disk", disk()),
        ("corpora", corpora()),
        ("weights", weights()),
        ("published", published()),
    ];
    for (name, value) in &report {
        show(name, value);
    }
    if json {
        let object: Map<String, Value> = report.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        progress::output(&Value::Object(object));
    }
    Ok(())
}

fn show(name: &str, value: &Value) {
    match value {
        Value::Array(items) if items.is_empty() => eprintln!("{name:<10} none"),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                eprintln!("{:<10} {}", if index == 0 { name } else { "" }, line(item));
            }
        }
        other => eprintln!("{name:<10} {}", line(other)),
    }
}

fn line(value: &Value) -> String {
    let text = |key: &str, value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if key.ends_with("bytes") => bytes(number.as_u64().unwrap_or(0)),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null() && *value != &json!([]));
            let named = fields.map(|(key, value)| format!("{} {}", key.trim_end_matches("_bytes"), text(key, value)));
            named.collect::<Vec<_>>().join(", ")
        }
        other => text("", other),
    }
}

/// The libtorch that this process has loaded, and what its wheel says of itself.
pub fn libtorch() -> Value {
    let path = loaded("libtorch_cpu.so");
    let folder = path.as_ref().and_then(|path| path.parent()?.parent());
    let version = folder.and_then(|folder| {
        let text = fs::read_to_string(folder.join("version.py")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(['\'', '"']).to_owned())
    });
    json!({ "version": version, "path": path, "expected": "2.11.0" })
}

fn loaded(library: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(library))?;
    Some(PathBuf::from(&line[line.find('/')?..]))
}

pub fn cpu() -> Value {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned()))
    };
    let flags = field("flags").unwrap_or_default();
    let known = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16"];
    let instructions: Vec<&str> = known.into_iter().filter(|name| flags.split(' ').any(|flag| flag == *name)).collect();
    json!({
        "model": field("model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "threads": tch::get_num_threads(),
        "instructions": instructions,
    })
}

pub fn cuda() -> Value {
    let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver =
        driver.and_then(|text| text.lines().next().map(|line| line.trim_start_matches("NVRM version: ").to_owned()));
    let (usable, problem) = match torch_ext::load_cuda() {
        Ok(usable) => (usable, None),
        Err(error) => (false, Some(error.to_string())),
    };
    let devices: Vec<Value> = (0..if usable { tch::Cuda::device_count() } else { 0 })
        .map(|index| match torch_ext::device_memory(tch::Device::Cuda(index as usize)) {
            Ok(memory) => json!({ "index": index, "total_bytes": memory.total, "free_bytes": memory.free }),
            Err(error) => json!({ "index": index, "problem": error.to_string() }),
        })
        .collect();
    json!({ "usable": usable, "driver": driver, "problem": problem, "nccl": nccl(), "devices": devices })
}

/// The NCCL of the wheels beside libtorch, or of the system.
fn nccl() -> Option<PathBuf> {
    let beside = loaded("libtorch_cpu.so").and_then(|path| {
        let packages = path.parent()?.parent()?.parent()?;
        Some(packages.join("nvidia/nccl/lib/libnccl.so.2"))
    });
    let system = ["/usr/lib/x86_64-linux-gnu/libnccl.so.2", "/usr/local/lib/libnccl.so.2"];
    beside.into_iter().chain(system.map(PathBuf::from)).find(|path| path.is_file())
}

pub fn memory() -> Value {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    json!({ "total_bytes": field("MemTotal:"), "available_bytes": field("MemAvailable:") })
}

fn disk() -> Value {
    let folder = std::env::current_dir().unwrap_or_default();
    let free = Command::new("df").args(["-Pk", "."]).output().ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok()
    });
    json!({ "folder": folder, "free_bytes": free.map(|kib| kib * 1024) })
}

/// The indexes under data/, with their pieces.
fn corpora() -> Value {
    let mut found: Vec<Value> = Vec::new();
    for path in files(Path::new("data"), 2) {
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let pieces = fs::read_to_string(&path).map(|text| text.lines().count()).unwrap_or(0);
            found.push(json!({ "path": path, "pieces": pieces }));
        }
    }
    Value::Array(found)
}

fn weights() -> Value {
    let mut found: Vec<Value> = Vec::new();
    for path in files(Path::new("checkpoints"), 1) {
        let known = path.extension().is_some_and(|extension| extension == "pth" || extension == "safetensors");
        if let (true, Ok(metadata)) = (known, fs::metadata(&path)) {
            let name = released::named(&path).map(|released| released.name);
            found.push(json!({ "path": path, "size_bytes": metadata.len(), "published": name }));
        }
    }
    Value::Array(found)
}

/// Which of the published weights are here.
fn published() -> Value {
    let (here, missing): (Vec<_>, Vec<_>) = WEIGHTS.iter().partition(|released| released.reference().is_here());
    let names = |of: Vec<&released::Released>| of.into_iter().map(|released| released.name).collect::<Vec<_>>();
    json!({ "here": names(here), "missing": names(missing) })
}

fn files(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if depth > 1 => found.extend(files(&path, depth - 1)),
            true => {}
            false => found.push(path),
        }
    }
    found.sort();
    found
}
