//! Compiles the shim against the same libtorch that `tch` links. `libtorch_cuda` is not linked but loaded where there is a
//! device (`load_cuda`), so that one binary serves both kinds of machines.
use std::{env, path::PathBuf};

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
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    std::process::exit(1)
}
