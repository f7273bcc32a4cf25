//! Which process does what: one runs the stages, the others follow it or look after them.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::RunArgs;
use super::folder::{forget, write_recipe};
use super::prepare::prepare;
use super::provenance;
use super::runner::{Report, Runner};
use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::lock::Lock;
use crate::common::progress::Reporter;
use crate::common::{files, signals};
use crate::launch::team::{Order, Team};
use crate::launch::{self, Role, device};
use crate::plan::state::RunState;
use crate::plan::{Plan, Planned};
use crate::recipe::Resolved;
use crate::recipe::paths::run_folder;
use crate::stages;
use crate::stages::context::{Context, Ended};

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
            prepare(args, resolved, native, &mut digests, &mut reporter, &stop)?;
            return launch::supervise(nproc, args.max_restarts, &folder, &mut reporter, &stop);
        }
        Role::Worker(place) => {
            launch::follow_supervisor()?;
            // Joining takes as long as it takes.
            let joining = signals::end_at_once()?;
            signals::check_stop(&stop)?;
            let team = Team::join(&place)?;
            joining.store(false, Ordering::Relaxed);
            team
        }
    };
    let agreed = device::native(device, team.local_rank).and_then(|native| team.gather_formats(native));
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

/// Runs the recipe as rank 0, and orders the other ranks.
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
    let (mut plan, seen) = prepare(args, resolved.clone(), native.clone(), digests, &mut reporter, stop)?;
    let folder = run_folder(&resolved.recipe.name);
    files::make_folder(&folder)?;
    // Slurm may start a job anew while the one before is still ending on another node.
    let in_company = args.shard.is_some() || std::env::var_os("SLURM_JOB_ID").is_some();
    let lock = Lock::take(&folder, if in_company { Lock::SHARES } else { Duration::ZERO })?;
    let mut state = RunState::read(&folder)?;
    if args.fresh {
        forget(&plan, &mut state, &mut reporter)?;
    }
    // Another process may have gone on with the run before this one had the lock.
    if args.fresh || state != seen {
        plan = Plan::new(resolved, &args.selection, &state, native, digests)?;
        plan.check_inputs()?;
    }
    let device = device::choose_for(plan.recipe.device, team.local_rank)?;
    write_recipe(&plan)?;
    announce(&plan, &mut reporter);
    if let Some(line) = device::time_estimate(&plan) {
        reporter.say(line);
    }
    if let Some(line) = device::slow_format(&plan) {
        reporter.warn(line);
    }
    if plan.stages.iter().any(Planned::is_to_run) {
        provenance::note(&folder, device, &plan.native, team.size())?;
    }
    let mut runner = Runner { plan, state, digests, reporter, report, stop, device, profile: args.profile, team };
    if let Some(shard) = args.shard {
        return runner.share(shard, lock);
    }
    let ended = runner.run_all();
    let finished = runner.finish();
    if ended.is_ok() {
        team.order(&Order::End)?;
    }
    ended.and(finished)
}

/// Follows the orders of rank 0.
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
