//! Compiles the shim against the same libtorch that `tch` links. `libtorch_cuda` is not linked but loaded before `main` where
//! there is a driver (`load_cuda`), so that one binary serves both kinds of machines.
use std::{
    env,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        fail("LIBTORCH is not set: run scripts/setup, or build inside the project's folder")
    };
    let lib = libtorch.join("lib");
    if !lib.join("libtorch_cpu.so").is_file() {
        fail(&format!("{} has no libtorch: run scripts/setup", lib.display()));
    }
    let include = libtorch.join("include");
    let mut shim = cc::Build::new();
    // Without OpenMP libtorch's own loops run on one thread in what includes them. Its threads are those of GCC's OpenMP,
    // which lies beside it.
    let openmp = openmp(&lib).filter(|_| shim.cpp(true).get_compiler().is_like_gnu());
    if openmp.is_some() {
        shim.flag("-fopenmp");
    }
    shim.cpp(true)
        .std("c++17")
        .warnings(false)
        .debug(false)
        .define("AT_PER_OPERATOR_HEADERS", None)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .include("shim")
        .file("shim/shim.cpp")
        .file("shim/allocations.cpp")
        .file("shim/linear.cpp")
        .file("shim/gelu.cpp")
        .file("shim/onednn.cpp")
        .file("shim/attention.cpp")
        .file("shim/flash_on_cpu.cpp")
        .file("shim/profile.cpp")
        .file("shim/upload.cpp")
        .file("shim/distributed.cpp")
        .compile("torch_ext_shim");
    let cuda = build_cuda(&libtorch, &include).unwrap_or_default();
    println!("cargo:rustc-env=TORCH_EXT_CUDA={}", cuda.display());
    println!("cargo:lib={}", lib.display());
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    if let Some(name) = openmp {
        println!("cargo:rustc-link-lib=dylib:+verbatim={name}");
    }
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
}

/// The file name of the OpenMP that libtorch brings.
fn openmp(lib: &Path) -> Option<String> {
    let mut names = std::fs::read_dir(lib).ok()?.filter_map(|file| file.ok()?.file_name().into_string().ok());
    names.find(|name| name.starts_with("libgomp"))
}

/// The CUDA part (NCCL, CUDA graphs): a library of its own that is loaded after `libtorch_cuda`. The CUDA set of libtorch
/// has the headers for it (they lie beside the folder of torch); without them there is none.
fn build_cuda(libtorch: &Path, include: &Path) -> Option<PathBuf> {
    let beside = libtorch.parent()?.join("nvidia");
    let headers = ["nccl/include", "cu13/include"].map(|folder| beside.join(folder));
    let needed =
        [headers[0].join("nccl.h"), headers[1].join("crt/host_config.h"), libtorch.join("lib/libtorch_cuda.so")];
    if !needed.iter().all(|file| file.is_file()) {
        return None;
    }
    let library = PathBuf::from(env::var_os("OUT_DIR")?).join("libtorch_ext_cuda.so");
    let compiler = cc::Build::new().cpp(true).std("c++17").warnings(false).pic(true).get_compiler();
    let mut command = compiler.to_command();
    command.args(["-shared", "-O2", "shim/nccl.cpp", "shim/graph.cpp", "-o"]).arg(&library);
    for folder in [Path::new("shim"), include, &include.join("torch/csrc/api/include"), &headers[0], &headers[1]] {
        command.arg("-I").arg(folder);
    }
    match command.status() {
        Ok(status) if status.success() => Some(library),
        _ => fail("the CUDA part could not be compiled (the compiler's messages are above)"),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    std::process::exit(1)
}
