//! How long a recipe takes on this machine's processor, from what its stages compute and what the processor computes in
//! a second. Meant to be right within a third (docs/performance.md); it decides nothing.
use std::fs;
use std::path::Path;

use model::Architecture;
use trainer::{Dtype, Precision};

use crate::plan::cost::Cost;
use crate::plan::{Plan, Planned, products};
use crate::recipe::{M3, Stage};

/// Characters of a patch, its end included: what chorales have.
const CHARACTERS: f64 = 12.0;
/// Bytes of a piece a patch.
const BYTES: f64 = 11.0;
/// The part of a context that a piece fills, before its file is there.
const FILLED: f64 = 0.6;
/// Elements through GELU that the rest of a layer's work costs, for an element of the hidden state: training, writing.
const REST: (f64, f64) = (40.0, 20.0);
/// Scores read and written in all their forms, a second and thread.
const SCORES: f64 = 250.0;

/// Seconds for the selected stages that are not done, and how many of these nothing is known of.
pub fn total(plan: &Plan) -> (f64, usize) {
    let to_run = plan.stages.iter().filter(|planned| planned.is_to_run());
    to_run.fold((0.0, 0), |(sum, unknown), planned| match seconds(plan, planned) {
        Some(seconds) => (sum + seconds, unknown),
        None => (sum, unknown + 1),
    })
}

/// Seconds for a stage; nothing where its inputs say too little.
fn seconds(plan: &Plan, planned: &Planned) -> Option<f64> {
    let mut stage = planned.stage.clone();
    let dtype = stage.precision().map_or(Dtype::Fp32, |precision: &mut Precision| precision.dtype());
    match &planned.stage {
        Stage::Preprocess(stage) => Some(names(&stage.scores, None)?.len() as f64 / SCORES / threads()),
        Stage::M3(stage) => {
            let pieces = pieces(plan, planned, &stage.train, stage.pieces.as_deref())?;
            let steps = match (stage.steps, stage.epochs) {
                (Some(steps), _) => steps.get() as f64,
                (None, epochs) => epochs.map_or(1, u64::from) as f64 * pieces / batch(stage),
            };
            Some(steps * batch(stage) * stage.patch_length.get() as f64 * FILLED * of_m3(stage).training(dtype))
        }
        Stage::Dpo(stage) => {
            let a = plan.architecture.as_ref()?;
            let pairs = stage.steps.get() as f64 * stage.batch_size.get() as f64;
            // Both pieces of a pair, and both once more through the reference.
            Some(pairs * 2.0 * length(a) * FILLED * 4.0 / 3.0 * of_notagen(a).training(dtype))
        }
        Stage::Generate(stage) => {
            let a = plan.architecture.as_ref()?;
            let most = stage.max_patches.map_or(f64::INFINITY, |patches| patches.get() as f64);
            let patches = (length(a) * FILLED).min(most);
            Some(stage.samples.get() as f64 * patches * of_notagen(a).writing())
        }
        // Forward passes at the most.
        Stage::Features(_) | Stage::Select(_) | Stage::Score(_) | Stage::Prefer(_) | Stage::Rl(_) => Some(0.0),
        stage => {
            let (training, a) = (stage.training()?, plan.architecture.as_ref()?);
            let seen = match Cost::of(training, a, true).steps {
                Some(steps) => steps as f64 * training.batch_size().get() as f64,
                None => {
                    let pieces = pieces(plan, planned, &training.train, training.pieces.as_deref())?;
                    training.epochs.map_or(1, u64::from) as f64 * pieces
                }
            };
            let patches = patches(&training.train).map_or(length(a) * FILLED, |patches| patches.min(length(a)));
            Some(seen * patches * of_notagen(a).training(dtype))
        }
    }
}

/// What a patch costs in a forward pass.
struct Forward {
    operations: f64,
    /// Elements of hidden states, over all layers.
    elements: f64,
}

impl Forward {
    fn training(&self, dtype: Dtype) -> f64 {
        3.0 * self.operations / products::of_processor(dtype) + REST.0 * self.elements / products::elements()
    }

    /// A CPU writes music in fp32.
    fn writing(&self) -> f64 {
        self.operations / products::of_processor(Dtype::Fp32) + REST.1 * self.elements / products::elements()
    }
}

fn of_notagen(a: &Architecture) -> Forward {
    let operations = a.patch_operations(length(a) * FILLED) + CHARACTERS * a.character_operations(CHARACTERS);
    let layers = a.patch_layers as f64 + CHARACTERS * a.char_layers as f64;
    Forward { operations, elements: layers * a.hidden_size as f64 }
}

/// The character decoder runs for masked patches alone.
fn of_m3(stage: &M3) -> Forward {
    let a = stage.architecture();
    let (h, masked) = (a.hidden_size as f64, stage.mask_ratio.get());
    let layers = a.patch_layers as f64 + masked * CHARACTERS * a.token_layers as f64;
    let operations =
        a.patch_operations(a.patch_length as f64 * FILLED) + masked * CHARACTERS * a.character_operations(CHARACTERS);
    Forward { operations, elements: layers * h }
}

fn length(a: &Architecture) -> f64 {
    a.patch_length as f64
}

fn batch(stage: &M3) -> f64 {
    stage.batch_size().get() as f64
}

fn threads() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |threads| threads.get() as f64)
}

/// How many pieces an index or a folder will have: those that are there, or those of the scores that it is made from.
fn pieces(plan: &Plan, planned: &Planned, train: &Path, glob: Option<&str>) -> Option<f64> {
    if let Ok(entries) = trainer::read_index(train, glob) {
        return Some(entries.len() as f64);
    }
    let maker = planned.inputs.iter().find(|input| input.key == "train")?.made_by.as_ref()?;
    let Stage::Preprocess(maker) = &plan.stages.iter().find(|stage| stage.name == *maker)?.stage else { return None };
    Some(names(&maker.scores, glob)?.len() as f64 * (1.0 - maker.eval_split.get()))
}

/// Patches of a piece, on average over some of an index.
fn patches(index: &Path) -> Option<f64> {
    let entries = trainer::read_index(index, None).ok()?;
    let some = entries.iter().step_by((entries.len() / 50).max(1));
    let sizes: Vec<f64> =
        some.filter_map(|entry| Some(fs::metadata(entry.file(entry.key().ok()?)).ok()?.len() as f64 / BYTES)).collect();
    (!sizes.is_empty()).then(|| sizes.iter().sum::<f64>() / sizes.len() as f64)
}

/// The names of the pieces in a folder.
fn names(folder: &Path, glob: Option<&str>) -> Option<Vec<String>> {
    let glob = glob.map(trainer::glob).transpose().ok()?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_stem()?.to_string_lossy().into_owned();
        if glob.as_ref().is_none_or(|glob| glob.is_match(&name)) {
            found.push(name);
        }
    }
    (!found.is_empty()).then_some(found)
}
