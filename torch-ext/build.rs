//! Compiles the shim against the same libtorch that `tch` links.
use std::{env, path::Path, path::PathBuf};

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
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file("shim/shim.cpp")
        .file("shim/linear.cpp")
        .compile("torch_ext_shim");
    println!("cargo:lib={}", lib.display());
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    link_cuda(&lib);
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
}

/// `torch_cuda` registers its kernels when it is loaded and exports nothing that we call, so the
/// linker drops it unless it is told not to. The small CPU set carries the file without what it needs.
fn link_cuda(lib: &Path) {
    println!("cargo:rerun-if-changed={}", lib.display());
    let cublas = lib.join("../../nvidia/cu13/lib/libcublas.so.13");
    let complete = lib.join("libtorch_cuda.so").is_file() && cublas.is_file();
    println!("cargo:cuda={}", if complete { "1" } else { "0" });
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    std::process::exit(1)
}
