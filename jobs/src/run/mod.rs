//! Runs a recipe: the stages that are missing, in order, each recorded before and after.
mod arguments;
pub mod provenance;
pub mod summary;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub use arguments::{RunArgs, shard};

use crate::{
    common::{
        digests::Digests,
        failure::{Failure, Result},
        files,
        lock::Lock,
        progress::{self, Reporter},
        signals,
    },
    hub::Hub,
    launch::{
        self, Role, device,
        team::{Order, Team},
    },
    plan::{
        Plan, Planned, StageStatus,
        state::{Outputs, Record, RecordStatus, RunState, now},
    },
    recipe::{Native, Resolved, Stage, paths::run_folder},
    stages::{
        self,
        context::{Context, Ended},
    },
};

/// What the command line would do, `--fresh` included.
pub fn foreseen(
    args: &RunArgs,
    resolved: Resolved,
    state: &RunState,
    native: Native,
    digests: &mut Digests,
) -> Result<Plan> {
    let mut plan = Plan::new(resolved, &args.selection, state, native, digests)?;
    if args.fresh {
        plan.begin_afresh();
    }
    Ok(plan)
}

/// Writes the page about a run.
pub type Report = fn(&Plan, &RunState, &mut Digests) -> Result<PathBuf>;

/// Runs a recipe.
///
/// # Errors
/// A usage failure for what is wrong with recipe or command line; a failure of a stage; an interruption.
pub fn run(args: &RunArgs, resolved: Resolved, report: Report, json: bool) -> Result<()> {
    let mut reporter = Reporter::new(json);
    let folder = run_folder(&resolved.recipe.name);
    let mut digests = Digests::open(&folder);
    let stop = signals::stop_flag()?;
    let device = resolved.recipe.device;
    let mut team = match launch::role(args.nproc, args.shard.is_some(), device)? {
        Role::Alone => Team::default(),
        Role::Supervisor(nproc) => {
            let native = device::native(device, 0)?;
            check(args, resolved, native, &mut digests, &mut reporter, &stop)?;
            return launch::supervise(nproc, args.max_restarts, &folder, &mut reporter, &stop);
        }
        Role::Worker(place) => {
            launch::follow_supervisor()?;
            // Joining takes as long as it takes.
            let joining = signals::end_at_once()?;
            signals::go_on(&stop)?;
            let team = Team::join(&place)?;
            joining.store(false, Ordering::Relaxed);
            team
        }
    };
    let agreed = device::native(device, team.local_rank).and_then(|native| team.agree(native));
    let outcome = agreed.and_then(|()| match team.is_leader() {
        true => lead(args, resolved, &mut digests, reporter, report, &mut team, &stop),
        false => follow(args, &resolved, &mut team, &stop),
    });
    if let Err(failure) = &outcome
        && failure.is_interruption()
        && team.is_leader()
    {
        // Who cannot be told finds out that this process is gone.
        let _ = team.order(&Order::Interrupted(failure.to_string()));
    }
    team.leave(outcome.as_ref().err());
    outcome
}

/// Tells everything that can be known to be wrong before anything is made, and fetches the weights that are missing.
fn check(
    args: &RunArgs,
    resolved: Resolved,
    native: Native,
    digests: &mut Digests,
    reporter: &mut Reporter,
    stop: &AtomicBool,
) -> Result<()> {
    let state = RunState::read(&run_folder(&resolved.recipe.name))?;
    let plan = foreseen(args, resolved, &state, native, digests)?;
    plan.check_inputs()?;
    fetch(&plan, reporter, stop)?;
    plan.check_weights(&state)?;
    signals::go_on(stop)
}

/// Fetches the files of the hub that the stages to run need.
///
/// # Errors
/// What the hub, the network or this machine does not give.
pub fn fetch(plan: &Plan, reporter: &mut Reporter, stop: &AtomicBool) -> Result<()> {
    let files = plan.to_fetch();
    if files.is_empty() {
        return Ok(());
    }
    let hub = Hub::from_env()?;
    for (planned, file) in files {
        if let Some(fetched) = hub.provide(file, reporter, stop).map_err(|failure| failure.in_stage(&planned.name))? {
            let (path, cached) = (file.path(), fetched.path);
            reporter.say(format!("{}: {} is {} in the hub's cache", planned.name, path.display(), cached.display()));
        }
    }
    reporter.end();
    Ok(())
}

/// Runs the recipe, and tells the others of the team what to do.
fn lead(
    args: &RunArgs,
    resolved: Resolved,
    digests: &mut Digests,
    mut reporter: Reporter,
    report: Report,
    team: &mut Team,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    let native = team.native.clone();
    check(args, resolved.clone(), native.clone(), digests, &mut reporter, stop)?;
    let folder = run_folder(&resolved.recipe.name);
    files::make_folder(&folder)?;
    // Slurm may start a job anew while the one before is still ending on another node.
    let in_company = args.shard.is_some() || std::env::var_os("SLURM_JOB_ID").is_some();
    let lock = Lock::take(&folder, if in_company { Lock::SHARES } else { Duration::ZERO })?;
    let mut state = RunState::read(&folder)?;
    let mut plan = Plan::new(resolved.clone(), &args.selection, &state, native.clone(), digests)?;
    if args.fresh {
        forget(&plan, &mut state, &mut reporter)?;
        plan = Plan::new(resolved, &args.selection, &state, native, digests)?;
        plan.check_inputs()?;
    }
    let device = device::choose_for(plan.recipe.device, team.local_rank)?;
    write_recipe(&plan)?;
    announce(&plan, &mut reporter);
    if let Some(line) = device::foretold(&plan) {
        reporter.say(line);
    }
    if let Some(line) = device::slow_format(&plan) {
        reporter.warn(line);
    }
    if plan.stages.iter().any(|stage| stage.is_to_run()) {
        provenance::note(&folder, device, &plan.native, team.size())?;
    }
    let mut runner = Runner { plan, state, digests, reporter, report, stop, device, profile: args.profile, team };
    if let Some(shard) = args.shard {
        return runner.share(shard, lock);
    }
    let ended = runner.all();
    let told = runner.finish();
    if ended.is_ok() {
        team.order(&Order::End)?;
    }
    ended.and(told)
}

/// Does what the leader of the team says.
fn follow(args: &RunArgs, resolved: &Resolved, team: &mut Team, stop: &Arc<AtomicBool>) -> Result<()> {
    let mut reporter = Reporter::quiet();
    loop {
        let (index, digest, state) = match team.next()? {
            Order::Stage { index, digest, state } => (index, digest, state),
            Order::End => return Ok(()),
            Order::Interrupted(message) => return Err(Failure::interrupted(message)),
        };
        let plan = Plan::outline(resolved.clone(), &args.selection, &state)?;
        let Some(mut planned) = plan.stages.get(index).cloned() else {
            return Err(Failure::failed("rank 0 runs a stage that is not in this process's recipe"));
        };
        planned.fingerprint.digest = digest;
        let device = device::choose_for(plan.recipe.device, team.local_rank)?;
        let by_pieces = planned.stage.works_by_pieces();
        let ended = stages::run(
            &planned,
            &mut Context {
                plan: &plan,
                state: &state,
                folder: &plan.stage_folder(&planned),
                device,
                shard: if by_pieces { team.shard() } else { (0, 1) },
                stop,
                profile: args.profile,
                reporter: &mut reporter,
                team,
            },
        )
        .map_err(|failure| failure.in_stage(&planned.name))?;
        if by_pieces {
            team.report(matches!(ended, Ended::Done(_)))?;
        }
    }
}

/// Whether the processes of a team run a stage together; the others are rank 0's alone.
fn is_for_all(stage: &Stage) -> bool {
    stage.works_by_pieces() || stage.training().is_some() || matches!(stage, Stage::M3(_) | Stage::Dpo(_))
}

struct Runner<'a> {
    plan: Plan,
    state: RunState,
    digests: &'a mut Digests,
    reporter: Reporter,
    report: Report,
    stop: &'a Arc<AtomicBool>,
    device: tch::Device,
    profile: Option<u64>,
    team: &'a mut Team,
}

impl Runner<'_> {
    fn all(&mut self) -> Result<()> {
        for index in 0..self.plan.stages.len() {
            if !self.plan.stages[index].selected {
                continue;
            }
            self.plan.compare(index, &self.state, self.digests)?;
            let planned = self.plan.stages[index].clone();
            match &planned.status {
                StageStatus::Done => {
                    self.publish(&planned)?;
                    self.reporter.say(format!("{}: done, {}", planned.name, planned.status.reason()));
                }
                _ if self.stop.load(Ordering::Relaxed) => return Err(interrupted(&planned.name)),
                _ => self.one(index, planned)?,
            }
        }
        Ok(())
    }

    /// A share of the one selected stage. The stage is begun under the lock, unless another share has begun it; the
    /// shares then work side by side, and the run without a share that follows finds their work and records it.
    fn share(&mut self, shard: (usize, usize), lock: Lock) -> Result<()> {
        let mut selected = (0..self.plan.stages.len()).filter(|index| self.plan.stages[*index].selected);
        let (Some(index), None) = (selected.next(), selected.next()) else {
            return Err(Failure::usage("--shard: --only names several stages").hint("name one part of it"));
        };
        self.plan.compare(index, &self.state, self.digests)?;
        let planned = self.plan.stages[index].clone();
        if !planned.stage.works_by_pieces() {
            return Err(Failure::usage(format!("--shard: stage {} does not work piece by piece", planned.name))
                .hint("generate, features and select do"));
        }
        if planned.status == StageStatus::Done {
            self.reporter.say(format!("{}: done, {}", planned.name, planned.status.reason()));
            return Ok(());
        }
        let (folder, _) = self.begin(&planned)?;
        drop(lock);
        let ended = self.work(&planned, &folder, shard);
        self.reporter.end();
        match ended.map_err(|failure| failure.in_stage(&planned.name))? {
            Ended::Done(_) => Ok(()),
            Ended::Interrupted => Err(interrupted(&planned.name)),
        }
    }

    /// Makes a stage's folder, and takes down that it runs.
    fn begin(&mut self, planned: &Planned) -> Result<(PathBuf, Record)> {
        self.reporter.say(format!("{}: {}, {}", planned.name, planned.status.word(), planned.status.reason()));
        let folder = self.plan.stage_folder(planned);
        if planned.status != StageStatus::Unfinished && folder.exists() {
            let aside = free_name(&folder);
            fs::rename(&folder, &aside).map_err(|error| Failure::io("move aside", &folder, error))?;
            self.reporter.say(format!("{}: its earlier folder is now {}", planned.name, aside.display()));
        }
        files::make_folder(&folder)?;
        let earlier = match planned.status {
            StageStatus::Unfinished => self.state.stages.get(&planned.name).map_or(0.0, |record| record.seconds),
            _ => 0.0,
        };
        let record = Record {
            kind: planned.stage.kind().to_owned(),
            folder: planned.folder.clone(),
            status: RecordStatus::Running,
            fingerprint: planned.fingerprint.clone(),
            started: now(),
            finished: None,
            seconds: earlier,
            error: None,
            result: Outputs::default(),
        };
        self.record(planned, &record)?;
        self.reporter.begin(&planned.name, &folder);
        if let Some(precision) = &planned.precision {
            self.reporter.say(precision);
        }
        write_recipe(&self.plan)?;
        self.reporter.event("stage_started", json!({ "kind": record.kind, "folder": folder }));
        Ok((folder, record))
    }

    fn work(&mut self, planned: &Planned, folder: &Path, shard: (usize, usize)) -> Result<Ended> {
        stages::run(
            planned,
            &mut Context {
                plan: &self.plan,
                state: &self.state,
                folder,
                device: self.device,
                shard,
                stop: self.stop,
                profile: self.profile,
                reporter: &mut self.reporter,
                team: self.team,
            },
        )
    }

    /// Runs a stage with the others of the team, where it is for all of them.
    fn together(&mut self, index: usize, planned: &Planned, folder: &Path) -> Result<Ended> {
        if self.team.size() == 1 || !is_for_all(&planned.stage) {
            return self.work(planned, folder, (0, 1));
        }
        let digest = planned.fingerprint.digest.clone();
        self.team.order(&Order::Stage { index, digest, state: self.state.clone() })?;
        if !planned.stage.works_by_pieces() {
            return self.work(planned, folder, (0, 1));
        }
        let mine = self.work(planned, folder, self.team.shard())?;
        match (mine, self.team.shares()?) {
            // Everything is there: what is left is to count it.
            (Ended::Done(_), true) => self.work(planned, folder, (0, 1)),
            _ => Ok(Ended::Interrupted),
        }
    }

    fn one(&mut self, index: usize, mut planned: Planned) -> Result<()> {
        let (folder, mut record) = self.begin(&planned)?;
        let earlier = record.seconds;
        let begun = Instant::now();
        let ended = self.together(index, &planned, &folder);
        record.seconds = earlier + begun.elapsed().as_secs_f64();
        record.finished = Some(now());
        let outcome = match ended {
            Ok(Ended::Done(outputs)) => {
                record.status = RecordStatus::Done;
                // A training counts the time before a kill too, of which nothing is known here.
                let counted = outputs.facts.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
                record.seconds = record.seconds.max(counted);
                record.result = outputs;
                Ok(())
            }
            Ok(Ended::Interrupted) => {
                record.status = RecordStatus::Interrupted;
                Err(interrupted(&planned.name))
            }
            Err(failure) => {
                record.status = RecordStatus::Failed;
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
        planned.status = StageStatus::Done;
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
        let Some(to) = planned.stage.published(self.plan.architecture.as_ref()) else { return Ok(()) };
        let was_ours = record.result.published.as_ref() == Some(&to);
        if was_ours && same(&weights, &to) {
            return Ok(());
        }
        files::link(&weights, &to).map_err(|error| Failure::io("publish", &to, error))?;
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
        files::save_json(&path, &summary)?;
        self.reporter.event("summary", summary);
        self.reporter.say(summary::table(&self.plan, &self.state).trim_end());
        // The work is done whether or not there is a page about it.
        match (self.report)(&self.plan, &self.state, self.digests) {
            Ok(path) => self.reporter.say(format!("report: {}", path.display())),
            Err(failure) => self.reporter.warn(format!("no report: {failure}")),
        }
        self.digests.save();
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
fn forget(plan: &Plan, state: &mut RunState, reporter: &mut Reporter) -> Result<()> {
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
    let text = serde_saphyr::to_string(&plan.settled_recipe()).map_err(|error| Failure::io("write", &path, error))?;
    files::save(&path, text)
}

fn announce(plan: &Plan, reporter: &mut Reporter) {
    let of = plan.stages.iter().filter(|stage| stage.selected).count();
    reporter.say(format!("run {}: {of} stages, in {}", plan.recipe.name, plan.folder.display()));
    let stages: Vec<Value> = plan
        .stages
        .iter()
        .map(|stage| json!({ "stage": stage.name, "standing": stage.status.word(), "selected": stage.selected }))
        .collect();
    reporter.event("plan", json!({ "run": plan.recipe.name, "folder": plan.folder, "stages": stages }));
}
