//! Compiles the shim against the same libtorch that `tch` links. `libtorch_cuda` is not linked but loaded before `main` where
//! there is a driver (`load_cuda`), so that one binary serves both kinds of machines.
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=kernels");
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
        .file("shim/calls.cpp")
        .file("shim/linear.cpp")
        .file("shim/gelu.cpp")
        .file("shim/onednn.cpp")
        .file("shim/attention.cpp")
        .file("shim/flash_on_cpu.cpp")
        .file("shim/pack.cpp")
        .file("shim/profile.cpp")
        .file("shim/distributed.cpp")
        .compile("torch_ext_shim");
    let cuda = build_cuda(&libtorch, &include).unwrap_or_default();
    println!("cargo:rustc-env=TORCH_EXT_CUDA={}", cuda.display());
    println!("cargo:rustc-env=TORCH_EXT_LIBTORCH={}", libtorch.display());
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

/// The CUDA part (NCCL, CUDA graphs, our own kernels): a library of its own that is loaded after `libtorch_cuda`. The CUDA
/// set of libtorch has headers and compiler for it (they lie beside the folder of torch); without headers there is none.
fn build_cuda(libtorch: &Path, include: &Path) -> Option<PathBuf> {
    let beside = libtorch.parent()?.join("nvidia");
    let cuda = beside.join("cu13");
    let headers = [beside.join("nccl/include"), cuda.join("include")];
    let needed =
        [headers[0].join("nccl.h"), headers[1].join("crt/host_config.h"), libtorch.join("lib/libtorch_cuda.so")];
    if !needed.iter().all(|file| file.is_file()) {
        return None;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    let library = out.join("libtorch_ext_cuda.so");
    let compiler = cc::Build::new().cpp(true).std("c++17").warnings(false).pic(true).get_compiler();
    let mut command = compiler.to_command();
    command.args(["-shared", "-O2", "-s", "-DAT_PER_OPERATOR_HEADERS", "shim/nccl.cpp", "shim/graph.cpp"]);
    if let Some(kernels) = build_kernels(&cuda, &out) {
        command.arg("shim/kernels.cpp").args(kernels);
        command.arg("-L").arg(cuda.join("lib")).arg("-l:libcudart.so.13");
    }
    command.arg("-o").arg(&library);
    for folder in [Path::new("shim"), include, &include.join("torch/csrc/api/include"), &headers[0], &headers[1]] {
        command.arg("-I").arg(folder);
    }
    match command.status() {
        Ok(status) if status.success() => Some(library),
        _ => fail("the CUDA part could not be compiled (the compiler's messages are above)"),
    }
}

/// Our own kernels, for compute capability 8.0, 9.0 and, compiled by the driver when they are loaded, those above. What the
/// compiler says of registers and memory lies in a file beside each.
fn build_kernels(cuda: &Path, out: &Path) -> Option<Vec<PathBuf>> {
    let nvcc = cuda.join("bin/nvcc");
    if !nvcc.is_file() {
        println!("cargo:warning=no nvcc in the CUDA set: built without our own kernels (scripts/setup --cuda)");
        return None;
    }
    let compile = |name: &str| {
        let object = out.join(format!("{name}.o"));
        let mut command = Command::new(&nvcc);
        command.args(["-std=c++17", "-O3", "-Xcompiler", "-fPIC", "-Xptxas", "-v", "--threads", "2"]);
        command.args(["-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=sm_90"]);
        command.args(["-gencode", "arch=compute_90,code=compute_90", "-c"]);
        let run = command.arg(format!("kernels/{name}.cu")).arg("-o").arg(&object).output();
        let Ok(run) = run else { fail(&format!("{} cannot be run", nvcc.display())) };
        let said = String::from_utf8_lossy(&run.stderr);
        if !run.status.success() || std::fs::write(out.join(format!("{name}.ptxas")), said.as_bytes()).is_err() {
            eprintln!("{said}");
            fail(&format!("the kernels of {name}.cu could not be compiled (nvcc's messages are above)"));
        }
        object
    };
    Some(["attention", "append", "draw", "norm"].map(compile).into())
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    std::process::exit(1)
}
