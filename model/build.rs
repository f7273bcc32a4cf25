//! Lets this crate's executables find libtorch without environment variables.
fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TORCH_EXT_LIB");
    if let Ok(lib) = std::env::var("DEP_TORCH_EXT_LIB") {
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{lib}");
    }
}
