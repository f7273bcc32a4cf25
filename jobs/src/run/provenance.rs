//! What a run's results came from, beside its recipe: `sessions.jsonl`, a line for every time that it was worked on.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::{lock, machine};
use crate::plan::state::now;
use crate::recipe::Native;

const FILE: &str = "sessions.jsonl";

/// Records that this process works on the run: when, with which program, on which machine.
///
/// # Errors
/// The run's folder cannot be written to.
pub fn note(folder: &Path, device: tch::Device, native: &Native, processes: usize) -> Result<()> {
    let path = folder.join(FILE);
    let program = std::env::current_exe().unwrap_or_default();
    let session = json!({
        "started": now(),
        "command": std::env::args().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "code": checkout(&program),
        "program_sha256": Digests::default().of(&program).ok(),
        "libtorch": machine::libtorch(),
        "host": lock::host(),
        "system": system(),
        "cpu": machine::cpu(),
        "cuda": machine::cuda(),
        "memory": machine::memory(),
        "device": format!("{device:?}"),
        "processes": processes,
        "precision": { "auto": native.best(), "why": native.why },
    });
    let open = OpenOptions::new().create(true).append(true).open(&path);
    open.and_then(|mut file| writeln!(file, "{session}")).map_err(|error| Failure::io("write", &path, error))
}

/// The sessions so far, oldest first.
pub fn sessions(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The commit of the checkout that the program was built in, as `git describe` names it.
fn checkout(program: &Path) -> Option<String> {
    let root = program.parent()?.parent()?.parent()?;
    if !root.join("Cargo.lock").is_file() {
        return None;
    }
    let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let output = Command::new("git").arg("-C").arg(root).args(describe).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

fn system() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kind = fs::read_to_string("/proc/sys/kernel/ostype").unwrap_or_default();
    format!("{} {}, {}", kind.trim(), version.trim(), std::env::consts::ARCH)
}
