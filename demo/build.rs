//! Embeds the page's libraries where `scripts/demo-page` has put them together; nothing where it has not.
use std::{env, fs, io::Write, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=dist");
    println!("cargo:rerun-if-changed=build.rs");
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("dist");
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
