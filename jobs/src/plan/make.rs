//! Compares the stages of a recipe with what was done before.
use std::collections::BTreeMap;
use std::path::Path;

use model::Architecture;

use super::fingerprint::Fingerprint;
use super::inputs::Input;
use super::planned::{Plan, Planned};
use super::precision;
use super::selection::Selection;
use super::state::{RecordStatus, RunState};
use super::status::{self, StageStatus};
use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::recipe::paths::run_folder;
use crate::recipe::{Init, Native, Recipe, Resolved, schema};

impl Planned {
    /// What it depends on.
    fn fingerprint(
        &self,
        recipe: &Recipe,
        architecture: Option<&Architecture>,
        earlier: &[Planned],
        state: &RunState,
        digests: &mut Digests,
    ) -> Result<Fingerprint> {
        let unreadable = |error: serde_json::Error| Failure::failed(format!("stage {}: {error}", self.name));
        let mut settings = schema::deciding(&self.stage).map_err(unreadable)?;
        if self.stage.trains() {
            settings.insert("seed".to_owned(), recipe.seed.into());
            settings.insert("model".to_owned(), serde_json::to_value(architecture).map_err(unreadable)?);
        }
        settings.insert("kind".to_owned(), self.stage.kind().into());
        let mut inputs = BTreeMap::new();
        if self.selected {
            for input in &self.inputs {
                let digest = digests.of(&input.path).map_err(|error| Failure::io("read", &input.path, error))?;
                inputs.insert(format!("{} {}", input.key, input.path.display()), digest);
            }
        }
        let mut stages = BTreeMap::new();
        for stage in earlier.iter().filter(|stage| self.reads.contains(&stage.name)) {
            // A stage that is left as it is counts with what it was run with.
            let digest = match state.stages.get(&stage.name) {
                Some(record) if !stage.selected && record.status == RecordStatus::Done => &record.fingerprint.digest,
                _ => &stage.fingerprint.digest,
            };
            stages.insert(stage.name.clone(), digest.clone());
        }
        Ok(Fingerprint::new(settings, inputs, stages))
    }
}

impl Plan {
    /// Resolves where everything is and compares it with what has been done.
    ///
    /// # Errors
    /// An unknown stage in the selection, an unreadable input or state.
    pub fn new(
        resolved: Resolved,
        selection: &Selection,
        state: &RunState,
        native: Native,
        digests: &mut Digests,
    ) -> Result<Plan> {
        let mut plan = Plan::outline(resolved, selection, state)?;
        plan.native = native;
        plan.compare_all(state, digests)?;
        Ok(plan)
    }

    /// Compares all stages with what has been done.
    ///
    /// # Errors
    /// An unreadable input.
    pub fn compare_all(&mut self, state: &RunState, digests: &mut Digests) -> Result<()> {
        for index in 0..self.stages.len() {
            self.compare(index, state, digests)?;
        }
        digests.save();
        Ok(())
    }

    /// The stages resolved, and none compared with what has been done: another process does that. A stage that was begun
    /// has the precision in which it was.
    ///
    /// # Errors
    /// An unknown stage in the selection.
    pub fn outline(resolved: Resolved, selection: &Selection, state: &RunState) -> Result<Plan> {
        let Resolved { recipe, architecture, .. } = resolved;
        let folder = run_folder(&recipe.name);
        let names: Vec<String> = recipe.stages.iter().filter_map(|stage| stage.name().cloned()).collect();
        let range = selection.range(&names)?;
        let mut stages: Vec<Planned> = Vec::new();
        for (index, (stage, name)) in recipe.stages.iter().zip(names).enumerate() {
            let sources = stage.inputs().map_err(Failure::usage)?;
            let init = sources.iter().find(|(key, _)| *key == "init").map(|(_, init)| init.clone());
            let inputs: Vec<Input> = sources
                .iter()
                .filter_map(|(key, from)| {
                    let maker = |path: &Path| stages.iter().rev().find(|earlier| earlier.stage.writes(path));
                    Input::of(key, from, |path| maker(path).map(|earlier| earlier.name.clone()))
                })
                .collect();
            let mut reads: Vec<String> = inputs.iter().filter_map(|input| input.made_by.clone()).collect();
            reads.extend(sources.into_iter().filter_map(|(_, from)| match from {
                Init::Stage(earlier) => Some(earlier),
                _ => None,
            }));
            reads.sort();
            reads.dedup();
            let record = state.stages.get(&name);
            let mut planned = Planned {
                folder: record.map_or_else(|| format!("{:02}-{name}", index + 1), |record| record.folder.clone()),
                name,
                stage: stage.clone(),
                inputs,
                init,
                reads,
                selected: range.contains(&index),
                precision: None,
                fingerprint: Fingerprint::new(BTreeMap::new(), BTreeMap::new(), BTreeMap::new()),
                status: StageStatus::ToDo,
            };
            if let (Some(begun), Some(precision)) =
                (precision::begun_in(record), precision::asks_machine(&mut planned.stage))
            {
                *precision = begun.into();
            }
            stages.push(planned);
        }
        Ok(Plan { recipe, architecture, folder, native: Native::default(), stages })
    }

    /// Compares a stage with what has been done, anew where stages before it may have run.
    pub fn compare(&mut self, index: usize, state: &RunState, digests: &mut Digests) -> Result<()> {
        let (earlier, rest) = self.stages.split_at_mut(index);
        let Some(planned) = rest.first_mut() else { return Ok(()) };
        for input in &mut planned.inputs {
            input.look();
        }
        let record = state.stages.get(&planned.name);
        let best = self.native.best();
        let auto = self.recipe.stages.get_mut(index).is_some_and(|stage| precision::asks_machine(stage).is_some());
        // A stage goes on in the precision in which it began; one that starts afresh takes what this machine multiplies.
        let begun = precision::begun_in(record).filter(|begun| auto && *begun != best);
        for format in begun.into_iter().chain([best]) {
            if auto {
                planned.settle(format, &self.native);
            }
            planned.fingerprint =
                planned.fingerprint(&self.recipe, self.architecture.as_ref(), earlier, state, digests)?;
            planned.status = status::of(&planned.stage, planned.selected, &planned.fingerprint, record);
            if matches!(planned.status, StageStatus::Done | StageStatus::Unfinished) {
                break;
            }
        }
        Ok(())
    }

    /// `--fresh`: the selected stages run again, whatever they have done.
    pub fn begin_afresh(&mut self) {
        for planned in self.stages.iter_mut().filter(|planned| planned.selected) {
            let folder = self.folder.join(&planned.folder);
            if folder.exists() {
                planned.status = StageStatus::Stale(vec![format!("--fresh removes {}", folder.display())]);
            } else if planned.status != StageStatus::ToDo {
                planned.status = StageStatus::Stale(vec!["--fresh forgets what was done".to_owned()]);
            }
            if planned.precision.is_some() {
                planned.settle(self.native.best(), &self.native);
            }
        }
    }
}
