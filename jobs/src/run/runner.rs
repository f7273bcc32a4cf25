//! Runs the stages of a plan, one after the other, and writes down how each ended.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::folder::{put_aside, same, write_recipe};
use super::summary;
use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::files;
use crate::common::lock::Lock;
use crate::common::progress::{self, Reporter};
use crate::launch::team::{Order, Team};
use crate::plan::state::{Outputs, Record, RecordStatus, RunState, now};
use crate::plan::{Plan, Planned, StageStatus};
use crate::stages;
use crate::stages::context::{Context, Ended};

/// Writes the page about a run.
pub type Report = fn(&Plan, &RunState, &mut Digests) -> Result<PathBuf>;

/// Runs the stages of a plan.
pub struct Runner<'a> {
    pub plan: Plan,
    pub state: RunState,
    pub digests: &'a mut Digests,
    pub reporter: Reporter,
    pub report: Report,
    pub stop: &'a Arc<AtomicBool>,
    pub device: tch::Device,
    pub profile: Option<u64>,
    pub team: &'a mut Team,
}

impl Runner<'_> {
    /// Runs the selected stages that are not done.
    pub fn run_all(&mut self) -> Result<()> {
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
                _ => self.run_stage(index, planned)?,
            }
        }
        Ok(())
    }

    /// A share of the one selected stage. The stage is begun under the lock, unless another share has begun it; the
    /// shares then work side by side, and the run without a share that follows finds their work and records it.
    pub fn share(&mut self, shard: (usize, usize), lock: Lock) -> Result<()> {
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
        let ended = self.run_share(&planned, &folder, shard);
        self.reporter.end();
        match ended.map_err(|failure| failure.in_stage(&planned.name))? {
            Ended::Done(_) => Ok(()),
            Ended::Interrupted => Err(interrupted(&planned.name)),
        }
    }

    /// Makes a stage's folder, and records that the stage runs.
    fn begin(&mut self, planned: &Planned) -> Result<(PathBuf, Record)> {
        self.reporter.say(format!("{}: {}, {}", planned.name, planned.status.word(), planned.status.reason()));
        let folder = self.plan.stage_folder(planned);
        if planned.status != StageStatus::Unfinished && folder.exists() {
            let aside = put_aside(&folder)?;
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

    fn run_share(&mut self, planned: &Planned, folder: &Path, shard: (usize, usize)) -> Result<Ended> {
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

    /// Runs a stage, with the other ranks if they share its work.
    fn run_with_team(&mut self, index: usize, planned: &Planned, folder: &Path) -> Result<Ended> {
        if self.team.size() == 1 || !planned.stage.is_for_all() {
            return self.run_share(planned, folder, (0, 1));
        }
        let digest = planned.fingerprint.digest.clone();
        self.team.order(&Order::Stage { index, digest, state: self.state.clone() })?;
        if !planned.stage.works_by_pieces() {
            return self.run_share(planned, folder, (0, 1));
        }
        let mine = self.run_share(planned, folder, self.team.shard())?;
        match (mine, self.team.shares()?) {
            // Everything is there: what is left is to count it.
            (Ended::Done(_), true) => self.run_share(planned, folder, (0, 1)),
            _ => Ok(Ended::Interrupted),
        }
    }

    fn run_stage(&mut self, index: usize, mut planned: Planned) -> Result<()> {
        let (folder, mut record) = self.begin(&planned)?;
        let earlier = record.seconds;
        let begun = Instant::now();
        let ended = self.run_with_team(index, &planned, &folder);
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
    pub fn finish(&mut self) -> Result<()> {
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
