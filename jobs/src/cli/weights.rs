//! `weights inspect`, `weights fetch` and `weights export`.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use model::weights::{self, ExportOptions};
use serde_json::{Map, Value, json};
use trainer::Dtype;

use crate::cli::arguments::WeightsCommand;
use crate::common::failure::{Failure, Result};
use crate::common::progress::{self, Reporter};
use crate::common::{files, table};
use crate::hub::Hub;
use crate::hub::released::{self, WEIGHTS};

pub fn run(command: &WeightsCommand, json: bool) -> Result<()> {
    match command {
        WeightsCommand::Inspect { files } => files.iter().try_for_each(|path| inspect(path, json)),
        WeightsCommand::Fetch { names, .. } if names.is_empty() => list(json),
        WeightsCommand::Fetch { names, .. } => fetch(names, json),
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
            (_, Value::Null) | ("warnings", _) => {}
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

fn list(json: bool) -> Result<()> {
    let mut rows = vec![["name", "network", "for", "here"].map(str::to_owned).to_vec()];
    for released in WEIGHTS {
        let file = released.reference();
        let here = file.is_here();
        let [name, purpose] = [released.name, released.purpose].map(str::to_owned);
        let mark = if here { "yes" } else { "" }.to_owned();
        rows.push(vec![name, released.network.to_string(), purpose, mark]);
        if json {
            let mut fields = Map::new();
            fields.insert("name".to_owned(), json!(released.name));
            fields.insert("kind".to_owned(), json!(released.network.kind()));
            fields.extend(released.network.sizes().map(|(size, number)| (size.to_owned(), json!(number))));
            fields.insert("purpose".to_owned(), json!(released.purpose));
            fields.insert("repository".to_owned(), json!(released.repository));
            fields.insert("file".to_owned(), json!(released.file));
            fields.insert("path".to_owned(), json!(file.path()));
            fields.insert("here".to_owned(), json!(here));
            progress::output(&Value::Object(fields));
        }
    }
    eprint!("{}", table::render(&rows));
    Ok(())
}

fn fetch(names: &[String], json: bool) -> Result<()> {
    let files = names.iter().map(|name| released::find(name)).collect::<Result<Vec<_>>>()?;
    let hub = Hub::from_env()?;
    let mut reporter = Reporter::new(false);
    for file in &files {
        let fetched = hub.provide(file, &mut reporter, &AtomicBool::new(false))?;
        reporter.end();
        let path = file.path();
        let bytes = fs::metadata(&path).map_err(|error| Failure::io("read", &path, error))?.len();
        let how = match &fetched {
            None => "was here already".to_owned(),
            Some(fetched) => format!("is {} in the hub's cache", fetched.path.display()),
        };
        reporter.say(format!("{}, {}, {how}", path.display(), progress::bytes(bytes)));
        if json {
            progress::output(&json!({
                "repository": file.repository,
                "revision": file.revision,
                "file": file.file,
                "path": path,
                "bytes": bytes,
                "cached": fetched.as_ref().map(|fetched| &fetched.path),
                "fetched": fetched.is_some_and(|fetched| fetched.carried),
            }));
        }
    }
    Ok(())
}

fn export(file: &Path, output: &Path, dtype: Option<Dtype>, everything: bool, json: bool) -> Result<()> {
    let kind = dtype.map(Dtype::kind);
    if output.exists() && released::is_released(output) {
        return Err(Failure::usage(format!("{} is a file of the originals: it is not overwritten", output.display()))
            .hint("choose another --output"));
    }
    let file = there(file)?;
    if output.exists() && fs::canonicalize(&file).ok() == fs::canonicalize(output).ok() {
        return Err(Failure::usage(format!("{} is the file to be read: it is not overwritten", output.display()))
            .hint("choose another --output"));
    }
    if let Some(folder) = output.parent() {
        files::make_folder(folder)?;
    }
    weights::export(&file, output, &ExportOptions { format: None, kind, everything })?;
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
