//! `weights inspect` and `weights export`.
use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use model::weights::{self, ExportOptions};
use serde_json::{Map, Value, json};
use tch::Kind;

use crate::{
    cli::{Dtype, WeightsCommand},
    failure::{Failure, Result},
    progress, released,
};

pub fn run(command: &WeightsCommand, json: bool) -> Result<()> {
    match command {
        WeightsCommand::Inspect { files } => files.iter().try_for_each(|path| inspect(path, json)),
        WeightsCommand::Export { file, output, dtype, everything } => export(file, output, *dtype, *everything, json),
    }
}

fn inspect(path: &Path, json: bool) -> Result<()> {
    let there = there(path)?;
    let inspection = weights::inspect(&there)?;
    let mut fields = Map::new();
    fields.insert("path".to_owned(), json!(path));
    if let Value::Object(found) = serde_json::to_value(&inspection).map_err(|e| Failure::failed(e.to_string()))? {
        fields.extend(found);
    }
    for (key, value) in &fields {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("path", _) => eprintln!("{}", path.display()),
            (key, Value::String(text)) => eprintln!("  {key:<14} {text}"),
            (key, value) => eprintln!("  {key:<14} {value}"),
        }
    }
    for warning in &inspection.warnings {
        eprintln!("warning: {warning}");
    }
    if json {
        progress::output(&Value::Object(fields));
    }
    Ok(())
}

fn export(file: &Path, output: &Path, dtype: Option<Dtype>, everything: bool, json: bool) -> Result<()> {
    let kind = dtype.map(|dtype| match dtype {
        Dtype::Fp32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::Fp16 => Kind::Half,
    });
    if output.exists() && released::is_released(output) {
        return Err(Failure::usage(format!("{} is a file of the originals: it is not overwritten", output.display()))
            .hint("choose another --output"));
    }
    weights::export(&there(file)?, output, &ExportOptions { format: None, kind, everything })?;
    let bytes = std::fs::metadata(output).map(|metadata| metadata.len()).unwrap_or(0);
    eprintln!("{}: {}", output.display(), progress::bytes(bytes));
    if json {
        progress::output(&json!({ "path": output, "bytes": bytes }));
    }
    Ok(())
}

/// A path that is there; of one that is not, where to get it.
pub fn there(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    Err(Failure::failed(format!("{}: no such file", path.display())).hint_if(released::where_to_get(path)))
}

/// What tells a file from an earlier one under its name: size and time of change, which cost no reading.
pub fn version(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).map_err(|error| Failure::io("read", path, error))?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(format!("{} {} {changed:?}", path.display(), metadata.len()))
}
