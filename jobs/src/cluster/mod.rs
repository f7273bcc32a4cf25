//! `submit`: a recipe as jobs of a cluster, one a stage, each after the one before it.
mod arguments;
mod kubernetes;
mod record;
mod script;
mod shape;
mod slurm;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::json;

pub use arguments::{Cluster, SubmitArgs};
pub use record::{Queue, Submitted};
pub use shape::resources;

use crate::cluster::record::StageJobs;
use crate::cluster::script::Script;
use crate::cluster::shape::{JobShape, shapes};
use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::files;
use crate::common::lock::Lock;
use crate::common::progress::{self, Reporter};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::state::{RunState, now};
use crate::plan::{Plan, Planned, StageStatus};
use crate::recipe::paths::{find_run, run_folder};
use crate::recipe::{self, Native};
use crate::run;

/// How long to wait for jobs that are ending: longer than Slurm gives them, by default, to save.
const ENDING: Duration = Duration::from_secs(40);

/// Submits what is neither done nor submitted already.
///
/// # Errors
/// What is wrong with recipe or command line, inputs that are missing, what Slurm refuses.
pub fn run(args: &SubmitArgs, json: bool) -> Result<()> {
    let resolved = recipe::load(&args.recipe, &args.set)?;
    let folder = run_folder(&resolved.recipe.name);
    let state = RunState::read(&folder)?;
    let mut digests = Digests::open(&folder);
    let plan = Plan::new(resolved, &args.selection, &state, Native::unknown(), &mut digests)?;
    if let Cluster::Kubernetes = args.cluster {
        return kubernetes::show(&plan, args, json);
    }
    plan.check_inputs()?;
    if args.dry_run {
        for planned in plan.stages.iter().filter(|planned| planned.is_to_run()) {
            show(&scripts(&plan, planned, args)?, json)?;
        }
        return Ok(());
    }
    slurm::check()?;
    // Here, since the nodes of a cluster often have no way out.
    run::fetch(&plan, &mut Reporter::new(json), &AtomicBool::new(false))?;
    plan.check_weights(&state)?;
    let scripts_folder = record::folder(&folder);
    files::make_folder(&scripts_folder)?;
    // Two that submit at once would submit everything twice.
    let _alone = Lock::at(&scripts_folder.join("lock"), Duration::ZERO)?;
    let mut submitted = Submitted::read(&folder)?;
    let queue = settled(&submitted)?;
    for planned in plan.stages.iter().filter(|planned| planned.selected) {
        check_settings(planned, &submitted, &queue, &plan)?;
    }
    let text = serde_saphyr::to_string(&plan.recipe).map_err(|error| Failure::failed(error.to_string()))?;
    save(&recipe(&plan), &text)?;
    let mut new = Vec::new();
    let all = submit(&plan, args, &mut submitted, &queue, &mut new, json);
    if all.is_err() && !new.is_empty() {
        slurm::cancel(&new)?;
        eprintln!("cancelled {}: what follows cannot be submitted", new.join(", "));
    }
    match all?.as_deref() {
        None => eprintln!("run {}: all is done, nothing is submitted", plan.recipe.name),
        Some(_) => eprintln!("`notagen-train status {0}` shows how far it is, `cancel {0}` ends it", plan.recipe.name),
    }
    Ok(())
}

/// Submits the stages in order. The last job in the queue; `new` gets those submitted here.
fn submit(
    plan: &Plan,
    args: &SubmitArgs,
    submitted: &mut Submitted,
    queue: &Queue,
    new: &mut Vec<String>,
    json: bool,
) -> Result<Option<String>> {
    let mut after: Option<String> = None;
    for planned in plan.stages.iter().filter(|planned| planned.status != StageStatus::Done) {
        if let Some(job) = live(planned, submitted, queue) {
            eprintln!("{}: submitted already, {}", planned.name, queue.describe(job));
            after = Some(job.clone());
            continue;
        }
        if !planned.selected {
            continue;
        }
        if let Some(before) = submitted.stages.remove(&planned.name) {
            // Shares of a stage whose last job is gone.
            slurm::cancel(&before.jobs.into_iter().filter(|job| queue.is_live(job)).collect::<Vec<_>>())?;
        }
        let mut jobs = Vec::new();
        for script in scripts(plan, planned, args)? {
            save(&script.path, &script.text()?)?;
            let job =
                slurm::sbatch(&script.path, after.as_deref()).map_err(|failure| failure.in_stage(&planned.name))?;
            let waits = after.map_or_else(String::new, |job| format!(", after job {job}"));
            eprintln!("{}: job {job}{waits}, {}", planned.name, script.path.display());
            new.push(job.clone());
            jobs.push(job.clone());
            after = Some(job);
            let stage = StageJobs { jobs: jobs.clone(), settings: settings(planned), submitted: now() };
            submitted.stages.insert(planned.name.clone(), stage);
            submitted.write(&plan.folder)?;
        }
        if json {
            progress::output(&json!({ "stage": planned.name, "jobs": jobs }));
        }
    }
    Ok(after)
}

/// Takes the jobs of a run off the cluster.
///
/// # Errors
/// Nothing was submitted, or Slurm does not answer.
pub fn cancel(run: &Path) -> Result<()> {
    let folder = find_run(run)?;
    let submitted = Submitted::read(&folder)?;
    let queue = submitted.queue()?;
    let jobs: Vec<String> =
        submitted.stages.values().flat_map(|stage| &stage.jobs).filter(|job| queue.is_live(job)).cloned().collect();
    slurm::cancel(&jobs)?;
    match jobs.as_slice() {
        [] => eprintln!("{}: none of its jobs is in the queue", folder.display()),
        jobs => eprintln!("{}: cancelled {}; what is done is kept", folder.display(), jobs.join(", ")),
    }
    Ok(())
}

/// The queue once no job is on its way out of it any more: one that is cannot be told from one that goes on.
fn settled(submitted: &Submitted) -> Result<Queue> {
    let begun = Instant::now();
    loop {
        let queue = submitted.queue()?;
        if !queue.is_ending() || begun.elapsed() > ENDING {
            return Ok(queue);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// The job that later stages wait for, if a stage has one.
fn live<'a>(planned: &Planned, submitted: &'a Submitted, queue: &Queue) -> Option<&'a String> {
    let job = submitted.stages.get(&planned.name)?.jobs.last()?;
    queue.is_live(job).then_some(job)
}

/// A stage in the queue runs with the settings that it was submitted with: they cannot be changed any more.
fn check_settings(planned: &Planned, submitted: &Submitted, queue: &Queue, plan: &Plan) -> Result<()> {
    let Some(job) = live(planned, submitted, queue) else { return Ok(()) };
    if submitted.stages.get(&planned.name).is_some_and(|stage| stage.settings == settings(planned)) {
        return Ok(());
    }
    Err(Failure::failed(format!("stage {} is submitted with other settings, as job {job}", planned.name))
        .hint(format!("take the jobs back first: notagen-train cancel {}", plan.recipe.name)))
}

/// A digest of a stage's settings alone: its inputs may not be there yet.
fn settings(planned: &Planned) -> String {
    Fingerprint::new(planned.fingerprint.settings.clone(), BTreeMap::new(), BTreeMap::new()).digest
}

/// The recipe that the jobs run: later changes of the recipe they come from do not reach them.
fn recipe(plan: &Plan) -> PathBuf {
    record::folder(&plan.folder).join("recipe.yaml")
}

/// The scripts of a stage's jobs.
fn scripts(plan: &Plan, planned: &Planned, args: &SubmitArgs) -> Result<Vec<Script>> {
    let resources = resources(&args.resources, plan, planned);
    let unknown = |what: &str, error: std::io::Error| Failure::failed(format!("{what} is unknown: {error}"));
    let working_directory = std::env::current_dir().map_err(|error| unknown("the working directory", error))?;
    let program = std::env::current_exe().map_err(|error| unknown("this program's own path", error))?;
    let place = plan.stages.iter().position(|stage| stage.name == planned.name).unwrap_or(0) + 1;
    Ok(shapes(plan, planned, &resources)
        .into_iter()
        .map(|shape| Script {
            run: plan.recipe.name.clone(),
            stage: planned.name.clone(),
            place: (place, plan.stages.len()),
            path: record::folder(&plan.folder).join(match shape {
                JobShape::Whole { .. } => format!("{}.sh", planned.folder),
                JobShape::Shards { .. } => format!("{}.shares.sh", planned.folder),
            }),
            recipe: recipe(plan),
            working_directory: working_directory.clone(),
            program: program.clone(),
            resources: resources.clone(),
            shape,
            max_restarts: args.max_restarts,
        })
        .collect())
}

/// `--dry-run`: the scripts, as they would be written.
fn show(scripts: &[Script], json: bool) -> Result<()> {
    for script in scripts {
        let text = script.text()?;
        if json {
            progress::output(&json!({ "stage": script.stage, "path": script.path, "script": text }));
        } else {
            progress::result(&format!("# ==> {} <==\n{text}", script.path.display()));
        }
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<()> {
    files::save(path, text)?;
    if path.extension().is_some_and(|extension| extension == "sh") {
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, executable).map_err(|error| Failure::io("write", path, error))?;
    }
    Ok(())
}
