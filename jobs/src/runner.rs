//! Runs a recipe: the stages that are missing, in order, each recorded before and after.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    atomic,
    cli::RunArgs,
    device,
    failure::{Failure, Result},
    fingerprint::Digests,
    lock::Lock,
    plan::{Plan, Planned, Standing},
    progress::{self, Reporter},
    resolve::{self, Resolved},
    settings, signals,
    stages::{self, Context, Ended},
    state::{Outputs, Record, State, Status, now},
    summary,
};

/// Reads a recipe with its `--set`, resolved.
pub fn load(path: &Path, set: &[String]) -> Result<Resolved> {
    resolve::resolve(path, settings::apply(settings::read(path)?, set)?)
}

/// Runs a recipe.
///
/// # Errors
/// A usage failure for what is wrong with recipe or command line; a failure of a stage; an interruption.
pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    let path = args.recipe.as_deref().ok_or_else(|| Failure::usage("no recipe is given"))?;
    let resolved = load(path, &args.set)?;
    if args.nproc != 1 {
        return Err(
            Failure::usage(format!("--nproc {}: this version runs one process", args.nproc)).hint("leave --nproc out")
        );
    }
    let mut reporter = Reporter::new(json);
    let folder = crate::plan::run_folder(&resolved.recipe.name);
    let mut digests = Digests::open(&folder.join("digests.json"));
    if args.dry_run {
        let state = State::read(&folder)?;
        let plan = Plan::new(resolved, &args.selection(), &state, &mut digests)?;
        crate::commands::plan::show(&plan, json);
        return plan.check_inputs();
    }
    // Everything that can be known to be wrong is told before anything is made.
    let state = State::read(&folder)?;
    let plan = Plan::new(resolved.clone(), &args.selection(), &state, &mut digests)?;
    plan.check_inputs()?;
    plan.check_weights(&state)?;
    fs::create_dir_all(&folder).map_err(|error| Failure::io("make", &folder, error))?;
    let _lock = Lock::take(&folder)?;
    let stop = signals::stop_flag()?;
    let mut state = State::read(&folder)?;
    let mut plan = Plan::new(resolved.clone(), &args.selection(), &state, &mut digests)?;
    if args.fresh {
        forget(&plan, &mut state, &mut reporter)?;
        plan = Plan::new(resolved, &args.selection(), &state, &mut digests)?;
        plan.check_inputs()?;
    }
    let device = device::choose(plan.recipe.device)?;
    write_recipe(&plan)?;
    announce(&plan, &mut reporter);
    let mut runner = Runner { plan, state, digests, reporter, stop: &stop, device };
    let ended = runner.all();
    let told = runner.finish();
    ended.and(told)
}

struct Runner<'a> {
    plan: Plan,
    state: State,
    digests: Digests,
    reporter: Reporter,
    stop: &'a Arc<AtomicBool>,
    device: tch::Device,
}

impl Runner<'_> {
    fn all(&mut self) -> Result<()> {
        for index in 0..self.plan.stages.len() {
            if !self.plan.stages[index].selected {
                continue;
            }
            self.plan.refresh(index, &self.state, &mut self.digests)?;
            let planned = self.plan.stages[index].clone();
            match &planned.standing {
                Standing::Done => {
                    self.publish(&planned)?;
                    self.reporter.say(format!("{}: done, {}", planned.name, planned.standing.reason()));
                }
                Standing::Unavailable => return Err(stages::unavailable(&planned)),
                _ if self.stop.load(Ordering::Relaxed) => return Err(interrupted(&planned.name)),
                _ => self.one(planned)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, mut planned: Planned) -> Result<()> {
        self.reporter.say(format!("{}: {}, {}", planned.name, planned.standing.word(), planned.standing.reason()));
        let folder = self.plan.stage_folder(&planned);
        if planned.standing != Standing::Unfinished && folder.exists() {
            let aside = free_name(&folder);
            fs::rename(&folder, &aside).map_err(|error| Failure::io("move aside", &folder, error))?;
            self.reporter.say(format!("{}: its earlier folder is now {}", planned.name, aside.display()));
        }
        fs::create_dir_all(&folder).map_err(|error| Failure::io("make", &folder, error))?;
        let earlier = match planned.standing {
            Standing::Unfinished => self.state.stages.get(&planned.name).map_or(0.0, |record| record.seconds),
            _ => 0.0,
        };
        let begun = Instant::now();
        let mut record = Record {
            kind: planned.stage.kind().to_owned(),
            folder: planned.folder.clone(),
            status: Status::Running,
            fingerprint: planned.fingerprint.clone(),
            started: now(),
            finished: None,
            seconds: earlier,
            error: None,
            result: Outputs::default(),
        };
        self.record(&planned, &record)?;
        self.reporter.begin(&planned.name, &folder);
        self.reporter.event("stage_started", json!({ "kind": record.kind, "folder": folder }));
        let ended = stages::run(
            &planned,
            &mut Context {
                plan: &self.plan,
                state: &self.state,
                folder: &folder,
                device: self.device,
                stop: self.stop,
                reporter: &mut self.reporter,
            },
        );
        record.seconds = earlier + begun.elapsed().as_secs_f64();
        record.finished = Some(now());
        let outcome = match ended {
            Ok(Ended::Done(outputs)) => {
                record.status = Status::Done;
                // A training counts the time before a kill too, of which nothing is known here.
                let counted = outputs.facts.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
                record.seconds = record.seconds.max(counted);
                record.result = outputs;
                Ok(())
            }
            Ok(Ended::Interrupted) => {
                record.status = Status::Interrupted;
                Err(interrupted(&planned.name))
            }
            Err(failure) => {
                record.status = Status::Failed;
                record.error = Some(failure.to_string());
                Err(failure.in_stage(&planned.name))
            }
        };
        self.record(&planned, &record)?;
        let seconds = record.seconds;
        let facts = Value::Object(record.result.facts.clone());
        self.reporter.event("stage_ended", json!({ "status": record.status, "seconds": seconds, "result": facts }));
        if outcome.is_ok() {
            self.reporter.say(format!("done in {}", progress::duration(seconds)));
        }
        self.reporter.end();
        outcome?;
        planned.standing = Standing::Done;
        self.publish(&planned)
    }

    fn record(&mut self, planned: &Planned, record: &Record) -> Result<()> {
        self.state.stages.insert(planned.name.clone(), record.clone());
        self.state.write(&self.plan.folder)
    }

    /// Puts a training stage's weights where other programs look for them, under the original's file name.
    fn publish(&mut self, planned: &Planned) -> Result<()> {
        let Some(record) = self.state.stages.get(&planned.name) else { return Ok(()) };
        let Some(weights) = record.result.weights.clone() else { return Ok(()) };
        let Some(to) = self.plan.published(planned) else { return Ok(()) };
        let was_ours = record.result.published.as_ref() == Some(&to);
        if was_ours && same(&weights, &to) {
            return Ok(());
        }
        atomic::link(&weights, &to).map_err(|error| Failure::io("publish", &to, error))?;
        self.reporter.say(format!("{}: weights are {}", planned.name, to.display()));
        self.reporter.event("published", json!({ "stage": planned.name, "path": to }));
        let mut record = record.clone();
        record.result.published = Some(to);
        self.record(planned, &record)
    }

    /// The table at the end, and `summary.json`.
    fn finish(&mut self) -> Result<()> {
        let summary = summary::of(&self.plan, &self.state);
        let path = self.plan.folder.join("summary.json");
        let bytes = serde_json::to_vec_pretty(&summary).map_err(|error| Failure::io("write", &path, error))?;
        atomic::write(&path, &bytes).map_err(|error| Failure::io("write", &path, error))?;
        self.digests.save();
        self.reporter.event("summary", summary);
        self.reporter.say(summary::table(&self.plan, &self.state).trim_end());
        Ok(())
    }
}

fn interrupted(stage: &str) -> Failure {
    Failure::interrupted(format!("stage {stage} was stopped by a signal; all is saved"))
        .hint("the same command goes on from here")
}

/// Whether two paths are one file, or at least of one size and time.
fn same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => one.len() == other.len() && one.modified().ok() == other.modified().ok(),
        _ => false,
    }
}

fn free_name(folder: &Path) -> PathBuf {
    let mut number = 1;
    loop {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(".old-{number}"));
        let path = PathBuf::from(name);
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}

/// `--fresh`: the selected stages count as never run.
fn forget(plan: &Plan, state: &mut State, reporter: &mut Reporter) -> Result<()> {
    for planned in plan.stages.iter().filter(|planned| planned.selected) {
        let folder = plan.stage_folder(planned);
        let known = state.stages.remove(&planned.name).is_some();
        if folder.exists() {
            reporter.say(format!("{}: --fresh removes {}", planned.name, folder.display()));
            state.write(&plan.folder)?;
            fs::remove_dir_all(&folder).map_err(|error| Failure::io("remove", &folder, error))?;
        } else if known {
            reporter.say(format!("{}: --fresh forgets what was done", planned.name));
        }
    }
    state.write(&plan.folder)
}

fn write_recipe(plan: &Plan) -> Result<()> {
    let path = plan.folder.join("recipe.yaml");
    let text = serde_saphyr::to_string(&plan.recipe).map_err(|error| Failure::io("write", &path, error))?;
    atomic::write(&path, text.as_bytes()).map_err(|error| Failure::io("write", &path, error))
}

fn announce(plan: &Plan, reporter: &mut Reporter) {
    let of = plan.stages.iter().filter(|stage| stage.selected).count();
    reporter.say(format!("run {}: {of} stages, in {}", plan.recipe.name, plan.folder.display()));
    if let Some(planned) = plan.stages.iter().find(|stage| stage.selected && stage.standing == Standing::Unavailable) {
        reporter.say(format!("stage {} is not available in this version: the run stops before it", planned.name));
    }
    let stages: Vec<Value> = plan
        .stages
        .iter()
        .map(|stage| json!({ "stage": stage.name, "standing": stage.standing.word(), "selected": stage.selected }))
        .collect();
    reporter.event("plan", json!({ "run": plan.recipe.name, "folder": plan.folder, "stages": stages }));
}
