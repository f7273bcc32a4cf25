//! Embeds the page's libraries where `scripts/demo-page` has put them together; nothing where it has not. And lets this
//! crate's executables find libtorch without environment variables.
use std::{env, fs, io::Write, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-env-changed=DEP_TORCH_EXT_LIB");
    if let Ok(lib) = env::var("DEP_TORCH_EXT_LIB") {
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{lib}");
    }
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("dist");
    // A folder that is not there would count as changed in every build: `scripts/demo-page` touches this file instead.
    println!("cargo:rerun-if-changed=build.rs");
    if dist.is_dir() {
        println!("cargo:rerun-if-changed=dist");
    }
    let mut table = fs::File::create(Path::new(&env::var("OUT_DIR")?).join("dist.rs"))?;
    writeln!(table, "/// Names and contents of the bundle's files.\npub(crate) const DIST: &[(&str, &[u8])] = &[")?;
    let mut files: Vec<_> = fs::read_dir(&dist).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", file.display().to_string())?;
    }
    writeln!(table, "];")?;
    Ok(())
}
