//! Times features of files, for `scripts/bench/features`:
//!
//!     cargo run --release -p model --example features -- --weights M3.pth --files LIST --output DIR
//!
//! LIST has a path a line. Prints a line of JSON: pieces together, and one by one. `--threads 1 --clock cpu` counts
//! the time that the thread ran, for a machine that others use too. `--device cpu` or `cuda` takes no other.
use model::features;
use model::m3::{MusicEncoder, feature_text};
use notation::corpus::PieceSource;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tch::Kind;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("features: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> = arguments.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let get = |name: &str, default: &'static str| (*given.get(name).unwrap_or(&default)).to_owned();
    let precision = get("--precision", "fp32");
    let kind = match precision.as_str() {
        "bf16" => Kind::BFloat16,
        "fp16" => Kind::Half,
        _ => Kind::Float,
    };
    let threads: i32 = get("--threads", "0").parse()?;
    if threads > 0 {
        tch::set_num_threads(threads);
    }
    let cpu = get("--clock", "wall") == "cpu";
    let device = torch_ext::device_named(&get("--device", "auto"))?;
    let encoder = MusicEncoder::load(Path::new(&get("--weights", "")), device, kind)?;
    let files: Vec<PathBuf> = std::fs::read_to_string(get("--files", ""))?.lines().map(PathBuf::from).collect();
    let output = PathBuf::from(get("--output", "."));
    extract(&encoder, &files[..1], &output)?;

    let start = now(cpu);
    let patches = extract(&encoder, &files, &output)?;
    let together = now(cpu) - start;
    let start = now(cpu);
    for file in &files {
        extract(&encoder, std::slice::from_ref(file), &output)?;
    }
    let alone = now(cpu) - start;
    println!(
        "{}",
        serde_json::json!({
            "what": "features here", "precision": precision, "device": format!("{device:?}"),
            "threads": tch::get_num_threads(), "clock": if cpu { "cpu" } else { "wall" }, "files": files.len(),
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

/// Seconds of the wall clock, or that this thread has run.
fn now(cpu: bool) -> f64 {
    let run = || std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse::<f64>().ok();
    if cpu && let Some(nanoseconds) = run() {
        return nanoseconds / 1e9;
    }
    std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
}
