//! What this machine has: libtorch, processor, GPUs, memory.
use std::{fs, path::PathBuf};

use serde_json::{Value, json};

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
