//! What has been submitted: `runs/<name>/slurm/jobs.json`.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::slurm::{self, Task};
use crate::common::failure::{Failure, Result};
use crate::common::files;

/// The jobs of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// By the name of the stage.
    pub stages: BTreeMap<String, StageJobs>,
}

/// The jobs of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageJobs {
    /// In the order in which they run; the last one records the stage, and later stages wait for it.
    pub jobs: Vec<String>,
    /// A digest of the settings that the stage was submitted with.
    pub settings: String,
    /// Seconds since 1970.
    pub submitted: u64,
}

impl Submitted {
    /// The record of the run in `folder`, empty if there is none.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Submitted> {
        let path = path(folder);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Failure::failed(format!("{} is damaged: {error}", path.display()))
                    .hint("remove it once none of the run's jobs is in the queue")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Submitted::default()),
            Err(error) => Err(Failure::io("read", &path, error)),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        files::save_json(&path(folder), self)
    }

    /// How the jobs of all stages stand.
    ///
    /// # Errors
    /// Slurm does not answer.
    pub fn queue(&self) -> Result<Queue> {
        let jobs: Vec<String> = self.stages.values().flat_map(|stage| stage.jobs.clone()).collect();
        slurm::queue(&jobs).map(Queue)
    }
}

/// Where scripts, logs and records of a run's jobs lie.
pub fn folder(run: &Path) -> PathBuf {
    run.join("slurm")
}

fn path(run: &Path) -> PathBuf {
    folder(run).join("jobs.json")
}

/// How jobs stand.
#[derive(Debug, Clone, Default)]
pub struct Queue(Vec<Task>);

impl Queue {
    pub fn of<'a>(&'a self, job: &'a str) -> impl Iterator<Item = &'a Task> {
        self.0.iter().filter(move |task| task.job == job)
    }

    pub fn is_live(&self, job: &str) -> bool {
        self.of(job).any(Task::is_live)
    }

    /// Whether Slurm is about to say how some job ended.
    pub fn is_ending(&self) -> bool {
        self.0.iter().any(Task::is_ending)
    }

    /// A job in words: `job 12 RUNNING on n1`, `job 13 PENDING (Dependency)`, of an array all its tasks.
    pub fn describe(&self, job: &str) -> String {
        let mut groups: Vec<(String, u64, Vec<&str>)> = Vec::new();
        for task in self.of(job) {
            let reason =
                if matches!(task.reason.as_str(), "" | "None") { String::new() } else { format!(" ({})", task.reason) };
            let words = format!("{}{reason}", task.state);
            if !groups.iter().any(|(other, ..)| *other == words) {
                groups.push((words.clone(), 0, Vec::new()));
            }
            if let Some((_, count, nodes)) = groups.iter_mut().find(|(other, ..)| *other == words) {
                *count += 1;
                if !task.node.is_empty() && !nodes.contains(&task.node.as_str()) {
                    nodes.push(&task.node);
                }
            }
        }
        let words: Vec<String> = groups
            .iter()
            .map(|(words, count, nodes)| {
                let count = if *count > 1 { format!("{count} × ") } else { String::new() };
                let nodes = if nodes.is_empty() { String::new() } else { format!(" on {}", nodes.join(",")) };
                format!("{count}{words}{nodes}")
            })
            .collect();
        let words = if words.is_empty() { "ended, and Slurm has forgotten it".to_owned() } else { words.join(", ") };
        format!("job {job} {words}")
    }
}
