//! Runs the Python that the golden tests compare with: `<root>/.tools/python`, made by `scripts/setup --tests`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs `tests/golden/<script>` with `arguments`, and gives what it prints. A test of its own fails where Python is
/// missing or the script fails.
pub fn run<A: AsRef<OsStr>>(script: &str, arguments: &[A]) -> String {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = packages(crate_folder);
    let output = Command::new("python3")
        .arg(crate_folder.join("tests/golden").join(script))
        .args(arguments)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("python3 is needed for the golden tests");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} failed:\n{out}\n{error}");
    out.into_owned()
}

fn packages(crate_folder: &Path) -> PathBuf {
    let root = crate_folder.ancestors().find(|folder| folder.join("Cargo.lock").is_file()).unwrap();
    let packages = root.join(".tools/python");
    assert!(packages.join("torch").is_dir(), "{} has no torch: run scripts/setup --tests", packages.display());
    packages
}
