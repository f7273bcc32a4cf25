//! What this machine has: libtorch, processor, GPUs, memory.
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The version of libtorch that this program is made for.
const LIBTORCH: &str = "2.11.0";

/// The libtorch that this process has loaded, and what lies beside it says of its version.
pub fn libtorch() -> Value {
    let path = loaded("libtorch_cpu.so");
    let version = path.as_ref().and_then(|path| version_of(path.parent()?.parent()?));
    // Any 2.11 will do, as for `scripts/setup`.
    let fits = |version: &str| LIBTORCH.split('.').zip(version.split('.')).take(2).all(|(here, there)| here == there);
    let problem = match &version {
        Some(version) if fits(version) => None,
        Some(_) => Some(format!("this program is made for {LIBTORCH}: unset LIBTORCH, or give it that version")),
        None => Some(format!("nothing beside it tells its version: it should be {LIBTORCH}")),
    };
    json!({ "version": version, "path": path, "expected": LIBTORCH, "problem": problem })
}

/// The version of the libtorch in a folder: a wheel tells it in `version.py`, an archive in `build-version`, and both in a
/// header.
fn version_of(libtorch: &Path) -> Option<String> {
    let read = |file: &str| fs::read_to_string(libtorch.join(file)).ok();
    let wheel = || {
        let text = read("version.py")?;
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(['\'', '"']).to_owned())
    };
    let archive = || Some(read("build-version")?.trim().to_owned()).filter(|version| !version.is_empty());
    let header = || {
        let text = read("include/torch/headeronly/version.h")?;
        let part = |name: &str| {
            let start = format!("#define TORCH_VERSION_{name} ");
            text.lines().find_map(|line| Some(line.strip_prefix(&start)?.trim().to_owned()))
        };
        Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
    };
    wheel().or_else(archive).or_else(header)
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

/// The driver, its cards, and what libtorch would use of them.
pub fn cuda() -> Value {
    let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver =
        driver.and_then(|text| text.lines().next().map(|line| line.trim_start_matches("NVRM version: ").to_owned()));
    let (usable, problem) = match torch_ext::load_cuda() {
        Ok(usable) => (usable, None),
        Err(error) => (false, Some(error.to_string())),
    };
    let problem = problem.or_else(|| {
        let hides = std::env::var("CUDA_VISIBLE_DEVICES").is_ok() && !usable && torch_ext::find_driver().is_ok();
        hides.then(|| "CUDA_VISIBLE_DEVICES hides every card: unset it".to_owned())
    });
    let (nccl, cudnn) = (library("nccl", "libnccl.so.2"), library("cudnn", "libcudnn.so.9"));
    json!({
        "usable": usable,
        "driver": driver,
        "driver_cuda": torch_ext::driver_version().ok(),
        "runtime_cuda": torch_ext::cuda_runtime_version().ok().map(torch_ext::cuda_name),
        "problem": problem,
        "nccl": nccl,
        "nccl_version": nccl.as_deref().and_then(library_version),
        "cudnn": cudnn,
        "cudnn_version": cudnn.as_deref().and_then(library_version),
        "attention": attention(usable),
        "kernels": usable.then(own_kernels),
        "devices": devices(usable),
    })
}

/// The cards that the driver shows, whether or not libtorch can use them.
fn devices(usable: bool) -> Vec<Value> {
    let shown = |index: usize| match torch_ext::card(index) {
        Err(_) if !usable || index as i64 >= tch::Cuda::device_count() => None,
        Err(error) => Some(json!({ "index": index, "problem": error.to_string() })),
        Ok(card) => {
            let (major, minor) = card.capability;
            let memory = usable.then(|| torch_ext::device_memory(tch::Device::Cuda(index)));
            let problem = memory.as_ref().and_then(|memory| Some(memory.as_ref().err()?.to_string()));
            let memory = memory.and_then(Result::ok);
            Some(json!({
                "index": index,
                "name": card.name,
                "capability": format!("{major}.{minor}"),
                "total_bytes": memory.map_or(card.memory, |memory| memory.total),
                "free_bytes": memory.map(|memory| memory.free),
                "problem": problem,
            }))
        }
    };
    (0..).map_while(shown).collect()
}

/// Whether the kernels of our own are used, and which, in the 16-bit formats; else why not.
fn own_kernels() -> String {
    let device = tch::Device::Cuda(0);
    if let Err(error) = torch_ext::kernels::available(device) {
        return format!("libtorch's: {error}");
    }
    let (mut used, mut problems) = (Vec::new(), Vec::new());
    for kind in [tch::Kind::BFloat16, tch::Kind::Half] {
        match torch_ext::kernels::ready(device, kind) {
            Ok(warnings) => problems.extend(warnings),
            Err(error) => problems.push(error.to_string()),
        }
        let own = torch_ext::kernels::Kernel::ALL.into_iter();
        used.extend(
            own.filter(|&kernel| torch_ext::kernels::is_own(kernel, device, kind)).map(|kernel| kernel.to_string()),
        );
    }
    used.sort();
    used.dedup();
    let used = if used.is_empty() { "none".to_owned() } else { used.join(", ") };
    let problems: String = problems.iter().map(|problem| format!("; {problem}")).collect();
    format!("our own: {used}{problems}")
}

/// The fused attention that models compute with.
fn attention(usable: bool) -> String {
    let attention = torch_ext::fused_attention();
    let kinds = match usable {
        true => {
            vec![("flash", attention.flash), ("memory-efficient", attention.efficient), ("cuDNN's", attention.cudnn)]
        }
        false => vec![("flash", attention.flash)],
    };
    let where_to = if usable { "a card" } else { "the CPU" };
    let (on, off): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|(_, on)| *on);
    let names = |kinds: &[(&str, bool)]| kinds.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and ");
    match (on.is_empty(), off.is_empty()) {
        (_, true) => format!("{} on {where_to}", names(&on)),
        (true, _) => format!("none that is fused on {where_to}"),
        _ => format!("{} on {where_to}; {} is off", names(&on), names(&off)),
    }
}

/// A library of NVIDIA: the one that libtorch has loaded, or of the wheels beside it, of its archive, or of the system.
fn library(package: &str, name: &str) -> Option<PathBuf> {
    let beside = loaded("libtorch_cpu.so").map_or_else(Vec::new, |path| {
        let lib = path.parent().unwrap_or(Path::new(""));
        vec![lib.join("../../nvidia").join(package).join("lib").join(name), lib.join(name)]
    });
    let system = ["/usr/lib/x86_64-linux-gnu", "/usr/local/lib"].map(|folder| Path::new(folder).join(name));
    loaded(name)
        .into_iter()
        .chain(beside)
        .chain(system)
        .find_map(|path| path.is_file().then(|| path.canonicalize().unwrap_or(path)))
}

/// What the library says of itself, or where it cannot be loaded, what its wheel or its file's name says.
fn library_version(library: &Path) -> Option<String> {
    torch_ext::library_version(library).ok().or_else(|| wheel_version(library)).or_else(|| {
        let (_, version) = library.file_name()?.to_str()?.split_once(".so.")?;
        version.contains('.').then(|| version.to_owned())
    })
}

/// `2.28.9` for `nvidia/nccl/lib/libnccl.so.2` beside `nvidia_nccl_cu13-2.28.9.dist-info`.
fn wheel_version(library: &Path) -> Option<String> {
    let package = library.parent()?.parent()?;
    let start = format!("nvidia_{}_", package.file_name()?.to_str()?);
    let wheels = fs::read_dir(package.parent()?.parent()?).ok()?.flatten();
    let names = wheels.filter_map(|entry| entry.file_name().into_string().ok());
    let mut versions = names.filter_map(|name| {
        let (package, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
        package.starts_with(&start).then(|| version.to_owned())
    });
    versions.next()
}

pub fn memory() -> Value {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    json!({ "total_bytes": field("MemTotal:"), "available_bytes": field("MemAvailable:") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn libtorch_tells_its_version_in_one_of_three_ways() {
        let header = "#define TORCH_VERSION_MAJOR 2\n\n#define TORCH_VERSION_MINOR 10\n#define TORCH_VERSION_PATCH 1\n";
        let mut files = vec![];
        for (file, text, version) in [
            ("lib/libtorch_cpu.so", "", None),
            ("include/torch/headeronly/version.h", header, Some("2.10.1")),
            ("build-version", "2.11.0+cu130\n", Some("2.11.0+cu130")),
            ("version.py", "x = 1\n__version__ = '2.12.0+cpu'\n", Some("2.12.0+cpu")),
        ] {
            files.push((file, text));
            assert_eq!(version_of(folder(&files).path()).as_deref(), version);
        }
    }

    #[test]
    fn a_library_that_cannot_be_loaded_has_the_version_of_its_wheel_or_of_its_name() {
        let library = "nvidia/nccl/lib/libnccl.so.2";
        let wheels = [(library, ""), ("nvidia_cudnn_cu13-9.19.0.56.dist-info/RECORD", "")];
        assert_eq!(library_version(&folder(&wheels).path().join(library)), None);
        let wheels = [(library, ""), ("nvidia_nccl_cu13-2.28.9.dist-info/RECORD", "")];
        assert_eq!(library_version(&folder(&wheels).path().join(library)).as_deref(), Some("2.28.9"));
        let library = "lib/libnccl.so.2.27.3";
        assert_eq!(library_version(&folder(&[(library, "")]).path().join(library)).as_deref(), Some("2.27.3"));
    }
}
