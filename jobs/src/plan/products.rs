//! How fast this machine's processor computes: measured once, in a second, and kept for the next command.
use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::{
    common::{atomic, machine},
    recipe::Dtype,
};

/// The width of the products that are measured.
const WIDTH: i64 = 512;
/// How long each is measured.
const TURN: Duration = Duration::from_millis(150);

/// Floating-point operations a second: those of one thread, measured, times the threads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Products {
    pub fp32: f64,
    pub bf16: f64,
    pub fp16: f64,
    /// What is not a matrix product: elements through GELU a second.
    pub elements: f64,
}

impl Products {
    /// Those of this processor: measured, unless a command before has.
    pub fn of_this_processor() -> Products {
        let path = cache();
        let mut known: BTreeMap<String, Products> =
            path.as_ref().and_then(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).unwrap_or_default();
        let here = key();
        if let Some(products) = known.get(&here) {
            return *products;
        }
        let threads = tch::get_num_threads();
        // Two threads wait for each other where other programs run; the best of one shows what the processor can do.
        tch::set_num_threads(1);
        let all = |kind| f64::from(threads) * measure(kind);
        let products = Products {
            fp32: all(Kind::Float),
            bf16: all(Kind::BFloat16),
            fp16: all(Kind::Half),
            elements: f64::from(threads) * elements(),
        };
        tch::set_num_threads(threads);
        known.insert(here, products);
        // Without the file the next command measures again.
        if let (Some(path), Ok(bytes)) = (path, serde_json::to_vec_pretty(&known)) {
            let _ = path.parent().map(fs::create_dir_all);
            let _ = atomic::write(&path, &bytes);
        }
        products
    }

    pub fn of(&self, dtype: Dtype) -> f64 {
        match dtype {
            Dtype::Fp32 => self.fp32,
            Dtype::Bf16 => self.bf16,
            Dtype::Fp16 => self.fp16,
        }
    }
}

/// What the speed depends on.
fn key() -> String {
    let (cpu, libtorch) = (machine::cpu(), machine::libtorch());
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let caps = ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"];
    let caps: Vec<String> = caps.iter().filter_map(|name| Some(format!(", {name}={}", env::var(name).ok()?))).collect();
    format!(
        "{}, {} threads, libtorch {}{}",
        text(&cpu["model"]),
        cpu["threads"],
        text(&libtorch["version"]),
        caps.concat()
    )
}

fn cache() -> Option<PathBuf> {
    let folder = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    Some(folder.join("notagen-train/products.json"))
}

fn measure(kind: Kind) -> f64 {
    let matrix = || Tensor::ones([WIDTH, WIDTH], (kind, Device::Cpu));
    let (a, b) = (matrix(), matrix());
    2.0 * (WIDTH as f64).powi(3) / fastest(|| drop(a.f_matmul(&b)))
}

fn elements() -> f64 {
    let x = Tensor::ones([WIDTH, 64], (Kind::Float, Device::Cpu));
    x.numel() as f64 / fastest(|| drop(x.f_gelu("tanh")))
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
    fn products_are_measured() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let rate = measure(kind);
            assert!(rate > 1e7 && rate.is_finite(), "{kind:?}: {rate}");
        }
    }
}
