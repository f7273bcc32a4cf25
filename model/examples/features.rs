//! Times features of files, for `scripts/bench/features`:
//!
//!     cargo run --release -p model --example features -- --weights M3.pth --files LIST --output DIR
//!
//! LIST has a path a line. Prints a line of JSON: pieces together, and one by one. `--threads 1 --clock cpu` counts
//! the time that the thread ran, for a machine that others use too. `--device cpu` or `cuda` takes no other.
#[path = "../../torch-ext/examples/common/mod.rs"]
mod common;

use common::{Arguments, Outcome};
use model::features;
use model::m3::{MusicEncoder, feature_text};
use notation::corpus::PieceSource;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    common::run("features", measure)
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    let (precision, kind) = arguments.precision();
    arguments.set_threads()?;
    let (clock, device) = (arguments.clock(), arguments.device("auto")?);
    let encoder = MusicEncoder::load(Path::new(arguments.get("--weights", "")), device, kind)?;
    let files: Vec<PathBuf> =
        std::fs::read_to_string(arguments.get("--files", ""))?.lines().map(PathBuf::from).collect();
    let output = PathBuf::from(arguments.get("--output", "."));
    extract(&encoder, &files[..1], &output)?;

    let start = clock.now();
    let patches = extract(&encoder, &files, &output)?;
    let together = clock.now() - start;
    let start = clock.now();
    for file in &files {
        extract(&encoder, std::slice::from_ref(file), &output)?;
    }
    let alone = clock.now() - start;
    println!(
        "{}",
        serde_json::json!({
            "what": "features here", "precision": precision, "device": format!("{device:?}"),
            "threads": tch::get_num_threads(), "clock": clock.name(), "files": files.len(),
            "patches": patches, "files_per_second": files.len() as f64 / together,
            "files_per_second_one_by_one": files.len() as f64 / alone,
        })
    );
    Ok(())
}

/// Reads files and writes their features; gives the number of patches.
fn extract(encoder: &MusicEncoder, files: &[PathBuf], output: &Path) -> Outcome<usize> {
    let patchiliser = encoder.patchiliser()?;
    let read = |file: &PathBuf| patchiliser.encode(&feature_text(&PieceSource::File(file.clone()))?);
    let pieces = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let found = encoder.embed(&pieces)?;
    for (i, file) in files.iter().enumerate() {
        let name = output.join(file.file_name().unwrap_or_default()).with_extension("npy");
        features::write(&name, &Vec::<f32>::try_from(found.get(i as i64))?)?;
    }
    Ok(pieces.iter().map(|piece| piece.len()).sum())
}
