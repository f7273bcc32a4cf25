//! Slurm's own commands: sbatch, squeue, sacct, scancel.
use std::path::Path;
use std::process::{Command, Output};

use crate::common::failure::{Failure, Result};

/// A job, or a task of an array, as Slurm sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The job's number, of a task its array's.
    pub job: String,
    /// PENDING, RUNNING, …
    pub state: String,
    /// Where it runs or ran.
    pub node: String,
    /// Why it waits, or why it ended.
    pub reason: String,
}

impl Task {
    /// Whether it runs, or will.
    pub fn is_live(&self) -> bool {
        !ENDED.contains(&self.state.as_str()) && self.reason != "DependencyNeverSatisfied"
    }

    /// Whether it is about to leave this state by itself.
    pub fn is_ending(&self) -> bool {
        self.state == "COMPLETING"
    }
}

const ENDED: [&str; 10] = [
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
    "REVOKED",
];

/// Asks whether there is a Slurm that jobs can be given to.
///
/// # Errors
/// One line of what it says.
pub fn check() -> Result<()> {
    answer(Command::new("sbatch").arg("--version"))?;
    answer(&mut sinfo())
        .map(drop)
        .map_err(|failure| failure.hint("is this a submit host? --dry-run prints the scripts without one"))
}

/// Asks for the names of the partitions.
fn sinfo() -> Command {
    let mut command = Command::new("sinfo");
    command.args(["--noheader", "--format=%R"]);
    command
}

/// Submits a script, to begin when another job has ended well. Its number.
///
/// # Errors
/// One line of what Slurm says.
pub fn sbatch(script: &Path, after: Option<&str>) -> Result<String> {
    let mut command = Command::new("sbatch");
    command.arg("--parsable");
    if let Some(job) = after {
        command.args([&format!("--dependency=afterok:{job}"), "--kill-on-invalid-dep=yes"]);
    }
    let text = answer(command.arg(script)).map_err(|failure| match failure.to_string() {
        text if text.contains("partition") => failure.hint(partitions()),
        text if text.contains("gres") => failure.hint("no such GPUs there: --gpus-per-node 0 is the CPU"),
        _ => failure,
    })?;
    // NUMBER or NUMBER;CLUSTER
    let number = text.trim().split(';').next().unwrap_or_default().to_owned();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::failed(format!("sbatch answers `{}`, which is no job's number", text.trim())));
    }
    Ok(number)
}

fn partitions() -> String {
    match answer(&mut sinfo()) {
        Ok(text) => format!("partitions: {}", text.split_whitespace().collect::<Vec<_>>().join(", ")),
        Err(_) => "sinfo lists the partitions".to_owned(),
    }
}

/// How jobs stand. Slurm forgets jobs some time after their end: those are left out.
///
/// # Errors
/// squeue is missing, or the controller does not answer.
pub fn queue(jobs: &[String]) -> Result<Vec<Task>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let list = format!("--jobs={}", jobs.join(","));
    let asked = answer(Command::new("squeue").args(["--noheader", "--states=all", "--format=%F|%T|%N|%r", &list]));
    let text = match asked {
        // What it says when it has forgotten all of them.
        Err(failure) if failure.to_string().contains("Invalid job id") => String::new(),
        other => other?,
    };
    let mut tasks: Vec<Task> = text.lines().filter_map(task).collect();
    let forgotten: Vec<&str> =
        jobs.iter().filter(|job| !tasks.iter().any(|task| task.job == **job)).map(String::as_str).collect();
    if !forgotten.is_empty() {
        // Not every cluster keeps accounts.
        let list = format!("--jobs={}", forgotten.join(","));
        let columns = "--format=JobID,State,NodeList,Reason";
        let past = answer(Command::new("sacct").args(["--allocations", "--noheader", "--parsable2", columns, &list]));
        tasks.extend(past.unwrap_or_default().lines().filter_map(task));
    }
    Ok(tasks)
}

/// A line of squeue's or sacct's. The latter writes ARRAY_TASK and `CANCELLED by USER`.
fn task(line: &str) -> Option<Task> {
    let mut columns = line.trim().split('|');
    let mut next = || columns.next().unwrap_or_default().trim();
    let job = next().split('_').next().unwrap_or_default().to_owned();
    let state = next().split(' ').next().unwrap_or_default().to_owned();
    (!job.is_empty() && !state.is_empty()).then(|| Task {
        job,
        state,
        node: next().to_owned(),
        reason: next().to_owned(),
    })
}

/// Takes jobs off the cluster.
///
/// # Errors
/// One line of what Slurm says.
pub fn cancel(jobs: &[String]) -> Result<()> {
    if jobs.is_empty() { Ok(()) } else { answer(Command::new("scancel").args(jobs)).map(drop) }
}

/// What a command prints.
fn answer(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::failed(format!("{name} is not here: this machine has no Slurm"))
            .hint("run it on a login node of the cluster; `submit --dry-run` shows the scripts without one"),
        _ => Failure::failed(format!("cannot run {name}: {error}")),
    })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&stderr);
    // `sbatch: error: invalid partition specified: x`, and then less telling lines; `fatal: ` says most.
    let said = |start: &str| text.lines().find_map(|line| line.split_once(start)).map(|(_, reason)| reason);
    let line = said("fatal: ").or_else(|| said("error: ")).unwrap_or_else(|| text.lines().next().unwrap_or_default());
    Err(Failure::failed(format!("{name}: {line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_squeue_and_of_sacct_are_read() {
        let of = |line| task(line).map(|task| (task.job.clone(), task.state.clone(), task.is_live()));
        let is = |job: &str, state: &str, live| Some((job.to_owned(), state.to_owned(), live));
        assert_eq!(of("12|PENDING||Dependency"), is("12", "PENDING", true));
        assert_eq!(of("12|PENDING||DependencyNeverSatisfied"), is("12", "PENDING", false));
        assert_eq!(of("13|RUNNING|n[1-2]|None"), is("13", "RUNNING", true));
        assert_eq!(of("14_3|CANCELLED by 1000|n1|None"), is("14", "CANCELLED", false));
        assert_eq!(of(""), None);
    }
}
