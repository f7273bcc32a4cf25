//! `status`: how far a run is.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Queue, Submitted};
use crate::common::failure::Result;
use crate::common::lock::Lock;
use crate::common::progress::{self, clock, duration};
use crate::plan::state::{RecordStatus, RunState, now};
use crate::recipe::paths::find_run;
use crate::recipe::{names, read};

pub fn run(run: &Path, follow: bool, json: bool) -> Result<()> {
    let folder = find_run(run)?;
    let mut shown = String::new();
    loop {
        let holder = Lock::holder(&folder);
        let state = RunState::read(&folder)?;
        let jobs = ClusterJobs::ask(&folder)?;
        let text = text(&folder, holder.as_deref(), &state, &jobs);
        if text != shown {
            eprint!("{text}");
            if json {
                progress::output(&object(&folder, holder.as_deref(), &state, &jobs));
            }
            shown = text;
        }
        if !follow || holder.is_none() && !jobs.any_live() {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(2));
    }
}

/// The stages of the recipe in its order, then those that are known though it does not have them.
fn in_order(folder: &Path, state: &RunState, jobs: &ClusterJobs) -> Vec<String> {
    let recipes = [folder.join("recipe.yaml"), folder.join("slurm/recipe.yaml")];
    let recipe = recipes.iter().find_map(|path| read::read(path).ok());
    let mut names = recipe.map(|recipe| names::of(&recipe)).unwrap_or_default();
    let mut begun: Vec<_> = state.stages.iter().collect();
    begun.sort_by(|a, b| a.1.folder.cmp(&b.1.folder));
    for name in begun.into_iter().map(|(name, _)| name).chain(jobs.waiting(state)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The jobs of a run on a cluster, and what Slurm says about them.
struct ClusterJobs {
    submitted: Submitted,
    queue: Queue,
    /// Why nothing is known of them.
    silent: Option<String>,
}

impl ClusterJobs {
    fn ask(folder: &Path) -> Result<ClusterJobs> {
        let submitted = Submitted::read(folder)?;
        let (queue, silent) = match submitted.queue() {
            Ok(queue) => (queue, None),
            Err(failure) => (Queue::default(), Some(failure.to_string())),
        };
        Ok(ClusterJobs { submitted, queue, silent })
    }

    fn of(&self, stage: &str) -> &[String] {
        self.submitted.stages.get(stage).map_or(&[], |stage| &stage.jobs)
    }

    fn any_live(&self) -> bool {
        self.submitted.stages.values().flat_map(|stage| &stage.jobs).any(|job| self.queue.is_live(job))
    }

    fn describe(&self, stage: &str) -> Vec<String> {
        let describe = |job: &String| match &self.silent {
            Some(reason) => format!("job {job} ({reason})"),
            None => self.queue.describe(job),
        };
        self.of(stage).iter().map(describe).collect()
    }

    /// Stages that wait for their first run, in the order of their jobs.
    fn waiting(&self, state: &RunState) -> Vec<&String> {
        let mut stages: Vec<_> =
            self.submitted.stages.iter().filter(|(stage, _)| !state.stages.contains_key(*stage)).collect();
        stages.sort_by_key(|(_, stage)| stage.jobs.last().and_then(|job| job.parse::<u64>().ok()));
        stages.into_iter().map(|(stage, _)| stage).collect()
    }
}

fn text(folder: &Path, holder: Option<&str>, state: &RunState, jobs: &ClusterJobs) -> String {
    let mut text = match holder {
        Some(holder) => format!("{}: being run by {holder}\n", folder.display()),
        None => format!("{}: nobody runs it\n", folder.display()),
    };
    for name in in_order(folder, state, jobs) {
        let Some(record) = state.stages.get(&name) else {
            text.push_str(&format!("{name:<16} to do\n"));
            for words in jobs.describe(&name) {
                text.push_str(&format!("{:<16} {words}\n", ""));
            }
            continue;
        };
        let since = clock(record.started);
        let queued = jobs.of(&name).iter().any(|job| jobs.queue.is_live(job));
        let state = match (record.status, holder) {
            (RecordStatus::Running, Some(_)) => {
                format!("running for {}", duration(now().saturating_sub(record.started) as f64))
            }
            (RecordStatus::Running | RecordStatus::Interrupted, None) if queued => "goes on as its jobs do".to_owned(),
            (RecordStatus::Running, None) => "was killed; running it again goes on".to_owned(),
            (RecordStatus::Interrupted, _) => "was stopped; running it again goes on".to_owned(),
            (RecordStatus::Failed, _) => format!("failed: {}", record.error.as_deref().unwrap_or("no reason is known")),
            (RecordStatus::Done, _) => format!("done in {}", duration(record.seconds)),
        };
        text.push_str(&format!("{name:<16} {state} (begun {since})\n"));
        if record.status == RecordStatus::Running
            && let Some(last) = last_metrics(&folder.join(&record.folder).join("metrics.jsonl"))
        {
            text.push_str(&format!("{:<16} {}\n", "", describe(&last)));
        }
        for words in jobs.describe(&name) {
            text.push_str(&format!("{:<16} {words}\n", ""));
        }
    }
    text
}

fn object(folder: &Path, holder: Option<&str>, state: &RunState, jobs: &ClusterJobs) -> Value {
    let of = |stage: &String| -> Vec<Value> {
        let words = jobs.describe(stage);
        jobs.of(stage)
            .iter()
            .zip(words)
            .map(|(job, words)| json!({ "job": job, "slurm": words, "live": jobs.queue.is_live(job) }))
            .collect()
    };
    let stages: Vec<Value> = in_order(folder, state, jobs)
        .into_iter()
        .map(|name| {
            let Some(record) = state.stages.get(&name) else {
                return json!({ "stage": name, "status": null, "jobs": of(&name) });
            };
            json!({
                "stage": name,
                "kind": record.kind,
                "status": record.status,
                "started": clock(record.started),
                "seconds": record.seconds,
                "error": record.error,
                "result": record.result,
                "last": last_metrics(&folder.join(&record.folder).join("metrics.jsonl")),
                "jobs": of(&name),
            })
        })
        .collect();
    json!({ "folder": folder, "runner": holder, "stages": stages })
}

/// A line of a training's metrics for people.
fn describe(event: &Value) -> String {
    let number = |key: &str| event[key].as_f64().unwrap_or(f64::NAN);
    let of = format!("step {}, epoch {}, ", event["step"], event["epoch"]);
    match event["event"].as_str() {
        Some("step") => format!("{of}loss {:.4}, {:.0} patches/s", number("loss"), number("patches_per_second")),
        Some("evaluated") => {
            format!("{of}train loss {:.4}, eval loss {:.4}", number("train_loss"), number("eval_loss"))
        }
        _ => event.to_string(),
    }
}

/// How far a training was at the last step or evaluation that it wrote down.
fn last_metrics(path: &Path) -> Option<Value> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(1 << 14))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut events = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.find(|event| event["event"] == "step" || event["event"] == "evaluated")
}
