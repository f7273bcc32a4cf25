//! Measures a checkpoint file: how long it takes to inspect, and how much memory to load its weights.
//! `scripts/large-checkpoint` runs it on a file of 6 GB that PyTorch made.
//!
//!     cargo run --release -p model --example checkpoint FILE

use std::{error::Error, fs, path::Path, time::Instant};

use model::weights;
use tch::Device;

/// What a large file has to keep to: seconds to inspect, and peak memory over the weights' own. Beside small ones
/// libtorch's own 120 MB count.
const SECONDS: f64 = 1.0;
const RATIO: f64 = 1.3;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let path = Path::new(&path);
    let file = fs::metadata(path)?.len() as f64;

    let start = Instant::now();
    let inspection = weights::inspect(path)?;
    let inspected = start.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&inspection)?);
    println!("file                 {:8.1} MB", file / 1e6);
    println!("inspected in         {inspected:8.3} s, peak memory {:.1} MB", peak()? / 1e6);

    let start = Instant::now();
    let state = weights::load_state(path)?;
    for (_, tensor) in state.iter() {
        drop(tensor.load(Device::Cpu)?);
    }
    println!("each tensor read in  {:8.3} s, peak memory {:.1} MB", start.elapsed().as_secs_f64(), peak()? / 1e6);

    let start = Instant::now();
    let model = weights::load(path, Device::Cpu)?;
    let loaded = start.elapsed().as_secs_f64();
    let bytes: f64 = model.parameters().iter().map(|(_, tensor)| tensor.numel() as f64 * 4.0).sum();
    let ratio = peak()? / bytes;
    println!("weights              {:8.1} MB", bytes / 1e6);
    println!("loaded in            {loaded:8.3} s, peak memory {:.1} MB: {ratio:.3} times the weights", peak()? / 1e6);

    let start = Instant::now();
    let copy = path.with_extension("copy.pth");
    let everything = weights::ExportOptions { everything: true, ..Default::default() };
    weights::export(path, &copy, &everything)?;
    let written = start.elapsed().as_secs_f64();
    println!("written again in     {written:8.3} s, peak memory {:.1} MB", peak()? / 1e6);

    if inspected >= SECONDS || ratio >= RATIO && bytes > 1e9 {
        return Err(format!("the bounds are {SECONDS} s and {RATIO} times the weights").into());
    }
    Ok(())
}

/// The most memory that this process has had, in bytes.
fn peak() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? * 1024.0)
}
