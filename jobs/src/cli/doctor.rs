//! `doctor`: what this machine has.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::common::failure::Result;
use crate::common::machine;
use crate::common::progress::{self, bytes};
use crate::hub::released::{self, WEIGHTS};
use crate::launch::device;
use crate::recipe::Device;

pub fn run(json: bool) -> Result<()> {
    let report = [
        ("libtorch", machine::libtorch()),
        ("cpu", machine::cpu()),
        ("cuda", machine::cuda()),
        ("precision", precision()),
        ("memory", machine::memory()),
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
        other => {
            for (index, line) in lines(other).iter().enumerate() {
                eprintln!("{:<10} {line}", if index == 0 { name } else { "" });
            }
        }
    }
}

/// A line of plain fields, a line for each thing in a list, and last the problem.
fn lines(value: &Value) -> Vec<String> {
    let Value::Object(map) = value else { return vec![line(value)] };
    let listed = |value: &Value| value.as_array().is_some_and(|items| items.iter().any(Value::is_object));
    let plain = map.iter().filter(|(key, value)| *key != "problem" && !listed(value));
    let mut lines = vec![line(&plain.map(|(key, value)| (key.clone(), value.clone())).collect())];
    lines.extend(
        map.values().filter(|value| listed(value)).flat_map(|items| items.as_array().into_iter().flatten().map(line)),
    );
    lines.extend(map.get("problem").and_then(Value::as_str).map(|problem| format!("problem: {problem}")));
    lines
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
            let named = fields.map(|(key, value)| {
                format!("{} {}", key.trim_end_matches("_bytes").replace('_', " "), text(key, value))
            });
            named.collect::<Vec<_>>().join(", ")
        }
        other => text("", other),
    }
}

/// What `precision: auto` comes to here.
fn precision() -> Value {
    let native = device::native_or_unknown(Device::Auto);
    json!({ "auto": native.best(), "why": native.why })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_and_a_problem_have_lines_of_their_own() {
        let devices = json!([{ "index": 0, "name": "Card", "total_bytes": 80_000_000_000_u64, "free_bytes": null }]);
        let value =
            json!({ "usable": false, "problem": "too old", "driver_cuda": "13.0", "nccl": null, "devices": devices });
        let size = bytes(80_000_000_000);
        let card = format!("index 0, name Card, total {size}");
        assert_eq!(lines(&value), ["usable false, driver cuda 13.0", &card, "problem: too old"]);
        assert_eq!(lines(&json!({ "devices": [], "problem": null, "usable": true })), ["usable true"]);
    }
}
