//! How fast this machine computes: measured once, in a fraction of a second, and of a processor kept for the next command.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::Value;
use tch::{Device, Kind, TchError, Tensor};
use trainer::Dtype;

use crate::common::{files, machine};

/// The width of the products that are measured, on a processor and on a card.
const WIDTH: (i64, i64) = (512, 8192);
/// How long each is measured.
const TURN: Duration = Duration::from_millis(150);

/// Floating-point operations a second of matrix products on a device, the most that it reaches. Nothing where a card has no
/// memory to try it.
pub fn of(device: Device, dtype: Dtype) -> Option<f64> {
    if device.is_cuda() {
        let rate = product(device, dtype.kind(), WIDTH.1).ok();
        // What this took is the training's.
        let _ = torch_ext::empty_cache(device);
        return rate;
    }
    Some(of_processor(dtype))
}

/// The same for this processor.
pub fn of_processor(dtype: Dtype) -> f64 {
    of_threads(&dtype.to_string(), || product(Device::Cpu, dtype.kind(), WIDTH.0).unwrap_or(f64::NAN))
}

/// The speed of all work but matrix products: elements that go through GELU in a second, on this processor.
pub fn elements() -> f64 {
    of_threads("elements", || {
        let x = Tensor::ones([64, WIDTH.0], (Kind::Float, Device::Cpu));
        x.numel() as f64 / fastest(|| drop(x.f_gelu("tanh")))
    })
}

/// A cached speed of this processor. If there is none, it is measured on one thread and multiplied by the number of threads:
/// on a busy machine several threads wait for each other, and the best time of one shows what the processor can do.
fn of_threads(name: &str, measure: impl Fn() -> f64) -> f64 {
    let path = cache();
    let read = |path: &PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    let mut known: BTreeMap<String, BTreeMap<String, f64>> = path.as_ref().and_then(read).unwrap_or_default();
    let here = known.entry(PROCESSOR.clone()).or_default();
    if let Some(rate) = here.get(name) {
        return *rate;
    }
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let rate = f64::from(threads) * measure();
    tch::set_num_threads(threads);
    here.insert(name.to_owned(), rate);
    // Without the file the next command measures again.
    let _ = path.map(|path| files::save_json(&path, &known));
    rate
}

/// What this processor's speed depends on, which stays as it is while the program runs.
static PROCESSOR: LazyLock<String> = LazyLock::new(processor);

fn processor() -> String {
    let (cpu, libtorch) = (machine::cpu(), machine::libtorch());
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let caps = ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"];
    let caps: Vec<String> = caps.iter().filter_map(|name| Some(format!(", {name}={}", env::var(name).ok()?))).collect();
    let (model, version) = (text(&cpu["model"]), text(&libtorch["version"]));
    format!("{model}, {} threads, libtorch {version}{}", cpu["threads"], caps.concat())
}

fn cache() -> Option<PathBuf> {
    let folder = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    Some(folder.join("notagen-train/speed.json"))
}

fn product(device: Device, kind: Kind, width: i64) -> Result<f64, TchError> {
    let matrix = || Tensor::f_ones([width, width], (kind, device));
    let (a, b) = (matrix()?, matrix()?);
    // What it fails for, it fails for now: below no one looks.
    drop(a.f_matmul(&b)?);
    let seconds = fastest(|| {
        drop(a.f_matmul(&b));
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
    });
    Ok(2.0 * (width as f64).powi(3) / seconds)
}

/// Seconds of the fastest of several turns, so that other work on the machine counts little.
fn fastest(work: impl Fn()) -> f64 {
    let turns = |length: Duration| {
        let (begun, mut best) = (Instant::now(), f64::INFINITY);
        while best.is_infinite() || begun.elapsed() < length {
            let start = Instant::now();
            work();
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    };
    // The first ones also make threads and lay out code.
    turns(TURN / 4);
    turns(TURN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_a_speed() {
        for (kind, width) in [(Kind::Float, 128), (Kind::BFloat16, 64)] {
            let rate = product(Device::Cpu, kind, width).unwrap();
            assert!(rate > 1e6 && rate.is_finite(), "{rate}");
        }
    }
}
