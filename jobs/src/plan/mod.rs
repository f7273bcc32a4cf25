//! What a run would do: the stages resolved, what each depends on, and how each stands.
pub mod cost;
pub mod fingerprint;
pub mod foretold;
pub mod products;
pub mod scaling;
pub mod state;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use model::{Architecture, weights};
use serde_json::Value;

use crate::{
    common::{
        digests::Digests,
        failure::{Failure, Result},
        loading,
    },
    hub::{reference::Reference, released},
    plan::{
        fingerprint::Fingerprint,
        state::{Outputs, Record, State, Status},
    },
    recipe::{
        Dtype, Native, Precision, Recipe, Stage, overrides,
        paths::{indexes, run_folder},
        resolve::{Init, Resolved},
    },
};

/// The stages of a recipe and how they stand.
#[derive(Debug)]
pub struct Plan {
    pub recipe: Recipe,
    pub architecture: Option<Architecture>,
    /// `runs/<name>`.
    pub folder: PathBuf,
    /// What this machine, or all of several, multiplies at full speed.
    pub native: Native,
    pub stages: Vec<Planned>,
}

/// One stage.
#[derive(Debug, Clone)]
pub struct Planned {
    pub name: String,
    pub stage: Stage,
    /// Its folder in the run's.
    pub folder: String,
    pub inputs: Vec<Input>,
    /// Where its weights come from.
    pub init: Option<Init>,
    /// Earlier stages whose results it reads.
    pub reads: Vec<String>,
    /// Whether the command line asks for it.
    pub selected: bool,
    /// Where the recipe says `precision: auto`: what it came to, and why.
    pub precision: Option<String>,
    pub fingerprint: Fingerprint,
    pub standing: Standing,
}

/// A file or folder that a stage reads.
#[derive(Debug, Clone)]
pub struct Input {
    /// The key that names it.
    pub key: &'static str,
    pub path: PathBuf,
    /// The earlier stage that writes it.
    pub made_by: Option<String>,
    pub present: bool,
    /// The file of the hub that it is, fetched before anything is run.
    pub hub: Option<Reference>,
    /// The way to come by it, where one is known beyond its path.
    pub origin: Option<String>,
}

/// How a stage stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its results are there and are those of these settings and inputs.
    Done,
    /// It was begun with these settings and inputs, and goes on from its last checkpoint.
    Unfinished,
    /// It was run with other settings or inputs.
    Stale(Vec<String>),
    ToDo,
}

impl Standing {
    pub fn word(&self) -> &'static str {
        match self {
            Standing::Done => "done",
            Standing::Unfinished => "unfinished",
            Standing::Stale(_) => "stale",
            Standing::ToDo => "to do",
        }
    }

    /// What will be done about it.
    pub fn reason(&self) -> String {
        match self {
            Standing::Done => "settings and inputs are as they were".to_owned(),
            Standing::Unfinished => "goes on from its last checkpoint".to_owned(),
            Standing::Stale(reasons) => reasons.join("; "),
            Standing::ToDo => "never run".to_owned(),
        }
    }
}

impl Planned {
    /// Settles what `auto` is.
    fn settle(&mut self, format: Dtype, native: &Native) {
        let Some(precision) = self.stage.precision() else { return };
        *precision = format.into();
        self.precision = Some(match native.best() {
            _ if native.formats.is_empty() => format!("precision auto: {}", native.why),
            best if best == format => format!("precision auto is {format}: {}", native.why),
            best => format!("goes on in {format}, as it began; begun here it would be {best}: {}", native.why),
        });
    }
}

/// The precision of a stage that leaves it to the machine.
fn asks_machine(stage: &mut Stage) -> Option<&mut Precision> {
    stage.precision().filter(|precision| **precision == Precision::Auto)
}

/// The precision in which a stage was begun.
fn begun_in(record: Option<&Record>) -> Option<Dtype> {
    serde_json::from_value(record?.fingerprint.settings.get("precision")?.clone()).ok()
}

/// Which stages the command line asks for.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Selection {
    /// The first stage.
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// The last stage.
    #[arg(long, value_name = "STAGE")]
    pub until: Option<String>,
    /// The one stage.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["from", "until"])]
    pub only: Option<String>,
}

impl Selection {
    fn range(&self, names: &[String]) -> Result<std::ops::RangeInclusive<usize>> {
        let find = |option, word: &Option<String>| {
            word.as_ref().map(|word| overrides::find_stages(names, option, word)).transpose()
        };
        if let Some(only) = find("--only", &self.only)? {
            return Ok(only);
        }
        let from = find("--from", &self.from)?.map_or(0, |stages| *stages.start());
        let until = find("--until", &self.until)?.map_or(names.len().saturating_sub(1), |stages| *stages.end());
        if from > until {
            return Err(Failure::usage("--from names a later stage than --until"));
        }
        Ok(from..=until)
    }
}

/// Settings of a training stage that do not decide its result: where it writes, how often, how fast.
const WITHOUT_EFFECT: [&str; 14] = [
    "name",
    "init",
    "resume_from",
    "train",
    "eval",
    "tag",
    "workers",
    "listen",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "activation_checkpointing",
    "shard_optimizer",
    "optimizer_offload",
];

impl Plan {
    /// Resolves where everything is and compares it with what has been done.
    ///
    /// # Errors
    /// An unknown stage in the selection, an unreadable input or state.
    pub fn new(
        resolved: Resolved,
        selection: &Selection,
        state: &State,
        native: Native,
        digests: &mut Digests,
    ) -> Result<Plan> {
        let mut plan = Plan::outline(resolved, selection, state)?;
        plan.native = native;
        for index in 0..plan.stages.len() {
            plan.compare(index, state, digests)?;
        }
        digests.save();
        Ok(plan)
    }

    /// The stages resolved, and none compared with what has been done: another process does that. A stage that was begun
    /// has the precision in which it was.
    ///
    /// # Errors
    /// An unknown stage in the selection.
    pub fn outline(resolved: Resolved, selection: &Selection, state: &State) -> Result<Plan> {
        let Resolved { recipe, names, architecture, .. } = resolved;
        let folder = run_folder(&recipe.name);
        let range = selection.range(&names)?;
        let mut stages: Vec<Planned> = Vec::new();
        for (index, (stage, name)) in recipe.stages.iter().zip(names).enumerate() {
            let init = init(stage)?;
            let inputs = inputs(stage, init.as_ref(), &stages);
            let mut reads: Vec<String> = inputs.iter().filter_map(|input| input.made_by.clone()).collect();
            for of in [&init, &judge(stage)?] {
                if let Some(Init::Stage(earlier)) = of {
                    reads.push(earlier.clone());
                }
            }
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
                standing: Standing::ToDo,
            };
            if let (Some(begun), Some(precision)) = (begun_in(record), asks_machine(&mut planned.stage)) {
                *precision = begun.into();
            }
            stages.push(planned);
        }
        Ok(Plan { recipe, architecture, folder, native: Native::default(), stages })
    }

    /// Compares a stage with what has been done, anew where stages before it may have run.
    pub fn compare(&mut self, index: usize, state: &State, digests: &mut Digests) -> Result<()> {
        let (earlier, rest) = self.stages.split_at_mut(index);
        let Some(planned) = rest.first_mut() else { return Ok(()) };
        for input in &mut planned.inputs {
            input.present = is_present(&input.path, input.hub.as_ref());
        }
        let record = state.stages.get(&planned.name);
        let best = self.native.best();
        let auto = self.recipe.stages.get_mut(index).is_some_and(|stage| asks_machine(stage).is_some());
        // A stage goes on in the precision in which it began; one that starts afresh takes what this machine multiplies.
        let begun = begun_in(record).filter(|begun| auto && *begun != best);
        for format in begun.into_iter().chain([best]) {
            if auto {
                planned.settle(format, &self.native);
            }
            planned.fingerprint =
                fingerprint(planned, &self.recipe, self.architecture.as_ref(), earlier, state, digests)?;
            planned.standing = standing(planned, record);
            if matches!(planned.standing, Standing::Done | Standing::Unfinished) {
                break;
            }
        }
        Ok(())
    }

    /// The stages to run that compute in a format which this machine emulates, or which is not its own: fp16 on a CPU.
    pub fn slow_formats(&self) -> Option<(Dtype, Vec<&str>)> {
        let to_run = self.stages.iter().filter(|planned| planned.selected && planned.standing != Standing::Done);
        let mut found: Vec<(Dtype, &str)> = Vec::new();
        for planned in to_run {
            // A CPU writes music in fp32, whatever is asked for.
            let computes = !matches!(planned.stage, Stage::Generate(_));
            if let Some(format) =
                planned.stage.clone().precision().filter(|_| computes).map(|precision| precision.dtype())
                && !self.native.formats.is_empty()
                && !self.native.multiplies(format)
            {
                found.push((format, &planned.name));
            }
        }
        let format = found.first()?.0;
        Some((format, found.into_iter().filter(|(of, _)| *of == format).map(|(_, name)| name).collect()))
    }

    /// The recipe with what `auto` came to.
    pub fn settled_recipe(&self) -> Recipe {
        let mut recipe = self.recipe.clone();
        recipe.stages = self.stages.iter().map(|planned| planned.stage.clone()).collect();
        if recipe.precision == Precision::Auto {
            recipe.precision = self.native.best().into();
        }
        recipe
    }

    /// `--fresh`: the selected stages run again, whatever they have done.
    pub fn begin_afresh(&mut self) {
        for planned in self.stages.iter_mut().filter(|planned| planned.selected) {
            let folder = self.folder.join(&planned.folder);
            if folder.exists() {
                planned.standing = Standing::Stale(vec![format!("--fresh removes {}", folder.display())]);
            } else if planned.standing != Standing::ToDo {
                planned.standing = Standing::Stale(vec!["--fresh forgets what was done".to_owned()]);
            }
            if planned.precision.is_some() {
                planned.settle(self.native.best(), &self.native);
            }
        }
    }

    /// Where the weights of a training stage are published, under the original's file name.
    pub fn published(&self, planned: &Planned) -> Option<PathBuf> {
        let file = match &planned.stage {
            Stage::Dpo(stage) => {
                let (beta, lambda, rate) = (stage.beta.get(), stage.lambda.get(), stage.learning_rate.get());
                weights::dpo_file_name(stage.tag.as_ref()?, self.architecture.as_ref()?, beta, lambda, rate)
            }
            Stage::M3(stage) => {
                let (rate, batch) = (stage.learning_rate?.get(), stage.batch_size?.get());
                let batch = i64::try_from(batch).unwrap_or(i64::MAX);
                let name = weights::m3_file_name(&stage.architecture(), rate, batch, stage.mask_ratio.get());
                match stage.tag.as_deref() {
                    Some("") | None => name,
                    Some(tag) => name.replacen("weights_m3_", &format!("weights_m3_{tag}_"), 1),
                }
            }
            stage => {
                let training = stage.training()?;
                let batch = i64::try_from(training.batch_size?.get()).unwrap_or(i64::MAX);
                weights::file_name(
                    training.tag.as_ref()?,
                    self.architecture.as_ref()?,
                    training.learning_rate?.get(),
                    batch,
                )
            }
        };
        Some(Path::new("checkpoints").join(file))
    }

    /// Checks the weights that are there against the recipe's network, and that none of the originals' files would
    /// be overwritten.
    ///
    /// # Errors
    /// One line that names file, stage and what does not fit.
    pub fn check_weights(&self, state: &State) -> Result<()> {
        for planned in self.stages.iter().filter(|planned| planned.selected && planned.standing != Standing::Done) {
            if let (Some(training), Some(architecture)) = (planned.stage.training(), &self.architecture) {
                let init = planned.init.as_ref().and_then(Init::path);
                for path in init.iter().chain(&training.resume_from).filter(|path| path.is_file()) {
                    loading::check(path, architecture).map_err(|failure| failure.in_stage(&planned.name))?;
                }
            }
            if let Some(path) = judge(&planned.stage)?.and_then(|judge| judge.path()).filter(|path| path.is_file()) {
                loading::check_encoder(&path).map_err(|failure| failure.in_stage(&planned.name))?;
            }
            if let Some(to) = self.published(planned).filter(|to| released::is_released(to) && to.exists()) {
                let ours = state.stages.get(&planned.name).and_then(|record| record.result.published.as_ref());
                if ours != Some(&to) {
                    return Err(Failure::usage(format!(
                        "stage {} would overwrite {}, a file of the originals",
                        planned.name,
                        to.display()
                    ))
                    .hint(format!("give it another tag: --set {}.tag=mine", planned.name)));
                }
            }
        }
        Ok(())
    }

    pub fn stage_folder(&self, stage: &Planned) -> PathBuf {
        self.folder.join(&stage.folder)
    }

    /// The files of the hub that the stages to run need and that are not here.
    pub fn to_fetch(&self) -> Vec<(&Planned, &Reference)> {
        let stages = self.stages.iter().filter(|stage| stage.selected && stage.standing != Standing::Done);
        let inputs = stages.flat_map(|stage| stage.inputs.iter().map(move |input| (stage, input)));
        let missing = inputs.filter(|(_, input)| !input.present);
        missing.filter_map(|(stage, input)| Some((stage, input.hub.as_ref()?))).collect()
    }

    /// The inputs that are neither there nor made by a stage that will have run, nor fetched from the hub.
    ///
    /// # Errors
    /// One failure that names all of them, and says where to get them and where to put them.
    pub fn check_inputs(&self) -> Result<()> {
        let mut missing: Vec<String> = Vec::new();
        let mut named: Vec<&Path> = Vec::new();
        let mut origins: Vec<String> = Vec::new();
        let mut will_be_made: Vec<&str> = Vec::new();
        for stage in &self.stages {
            if stage.selected && stage.standing != Standing::Done {
                for input in &stage.inputs {
                    let made = input.made_by.as_ref().is_some_and(|maker| will_be_made.contains(&maker.as_str()));
                    if !input.present && !made && input.hub.is_none() && !named.contains(&input.path.as_path()) {
                        named.push(&input.path);
                        missing.push(format!("{} ({} of stage {})", input.path.display(), input.key, stage.name));
                        let origin = input.origin.clone().unwrap_or_else(|| match input.key {
                            "scores" => format!("put MusicXML or standard ABC in {}", input.path.display()),
                            _ => "put what is missing there, or name other paths in the recipe".to_owned(),
                        });
                        if !origins.contains(&origin) {
                            origins.push(origin);
                        }
                    }
                }
                if let Some(Init::Stage(earlier)) = &stage.init
                    && !will_be_made.contains(&earlier.as_str())
                {
                    return Err(Failure::failed(format!(
                        "stage {} starts from the weights of stage {earlier}, which is not done",
                        stage.name
                    ))
                    .hint(format!("run stage {earlier} too (--from {earlier}), or set {}.init", stage.name)));
                }
            }
            if stage.selected || stage.standing == Standing::Done || matches!(stage.standing, Standing::Stale(_)) {
                will_be_made.push(&stage.name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!("missing: {}", missing.join(", "))).hint(origins.join("; ")))
    }
}

fn init(stage: &Stage) -> Result<Option<Init>> {
    match stage.clone().init() {
        Some(Some(text)) => Init::parse(text).map(Some).map_err(Failure::usage),
        _ => Ok(None),
    }
}

/// Where the music encoder's weights come from.
fn judge(stage: &Stage) -> Result<Option<Init>> {
    stage.judge().map(Init::parse).transpose().map_err(Failure::usage)
}

/// What a stage reads, in the order of its keys.
fn inputs(stage: &Stage, init: Option<&Init>, earlier: &[Planned]) -> Vec<Input> {
    let mut inputs = Vec::new();
    let mut add = |key: &'static str, path: &Path| inputs.push(input(key, path, None, earlier));
    match stage {
        Stage::Preprocess(stage) => {
            add("scores", &stage.scores);
            if let Some(prompts) = &stage.prompts {
                add("prompts", prompts);
            }
        }
        Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => {
            add("train", &stage.train);
            if let Some(eval) = &stage.eval {
                add("eval", eval);
            }
            if let Some(path) = &stage.resume_from {
                add("resume_from", path);
            }
        }
        Stage::M3(stage) => {
            add("train", &stage.train);
            if let Some(eval) = &stage.eval {
                add("eval", eval);
            }
        }
        Stage::Features(stage) => {
            add("input", &stage.input);
            if let Ok(weights) = Init::parse(&stage.weights) {
                inputs.extend(of_weights("weights", &weights, earlier));
            }
        }
        Stage::Score(stage) => {
            add("reference", &stage.reference);
            add("generated", &stage.generated);
        }
        Stage::Prefer(stage) => {
            add("reference", &stage.reference);
            add("features", &stage.features);
            add("interleaved", &stage.interleaved);
            add("original", &stage.original);
        }
        Stage::Dpo(stage) => add("preferences", &stage.preferences),
        Stage::Select(stage) => {
            add("corpus", &stage.corpus);
            if let Some(reference) = &stage.reference {
                add("reference", reference);
            }
            if let Some(Ok(weights)) = stage.clamp2.as_deref().map(Init::parse) {
                inputs.extend(of_weights("clamp2", &weights, earlier));
            }
        }
        // Rounds are stages of their own by now.
        Stage::Generate(_) | Stage::Rl(_) => {}
    }
    if let Some(init) = init {
        inputs.extend(of_weights("init", init, earlier));
    }
    inputs
}

fn of_weights(key: &'static str, weights: &Init, earlier: &[Planned]) -> Option<Input> {
    let hub = match weights {
        Init::Hub(reference) => Some(reference),
        _ => None,
    };
    Some(input(key, &weights.path()?, hub, earlier))
}

fn input(key: &'static str, path: &Path, hub: Option<&Reference>, earlier: &[Planned]) -> Input {
    let made_by = earlier.iter().rev().find(|stage| writes(&stage.stage, path)).map(|stage| stage.name.clone());
    let origin = released::where_to_get(path);
    Input { key, path: path.to_owned(), made_by, present: is_present(path, hub), hub: hub.cloned(), origin }
}

fn is_present(path: &Path, hub: Option<&Reference>) -> bool {
    hub.map_or_else(|| path.exists(), Reference::is_here)
}

/// Whether a stage writes this path.
fn writes(stage: &Stage, path: &Path) -> bool {
    match stage {
        Stage::Preprocess(stage) => {
            stage.interleaved.as_deref() == Some(path)
                || stage.pack.as_deref() == Some(path)
                || path == stage.augmented
                || indexes(&stage.augmented).iter().any(|index| path == index)
        }
        Stage::Features(stage) => path == stage.output,
        Stage::Prefer(stage) => path == stage.output,
        Stage::Select(stage) => path == stage.output,
        Stage::Generate(stage) => stage.output.as_ref().is_some_and(|output| path.starts_with(output)),
        _ => false,
    }
}

fn fingerprint(
    planned: &Planned,
    recipe: &Recipe,
    architecture: Option<&Architecture>,
    earlier: &[Planned],
    state: &State,
    digests: &mut Digests,
) -> Result<Fingerprint> {
    let unreadable = |error: serde_json::Error| Failure::failed(format!("stage {}: {error}", planned.name));
    let mut settings: BTreeMap<String, Value> = BTreeMap::new();
    if let Value::Object(tagged) = serde_json::to_value(&planned.stage).map_err(unreadable)? {
        for (_, keys) in tagged {
            if let Value::Object(keys) = keys {
                settings.extend(keys);
            }
        }
    }
    settings.remove("resources");
    if matches!(planned.stage, Stage::M3(_) | Stage::Dpo(_)) || planned.stage.training().is_some() {
        settings.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()));
        settings.insert("seed".to_owned(), recipe.seed.into());
        settings.insert("model".to_owned(), serde_json::to_value(architecture).map_err(unreadable)?);
    } else {
        // How many go through a network together makes no difference to them.
        for key in ["name", "init", "batch_size", "plot"] {
            settings.remove(key);
        }
    }
    settings.insert("kind".to_owned(), planned.stage.kind().into());
    let mut inputs = BTreeMap::new();
    if planned.selected {
        for input in &planned.inputs {
            let digest = digests.of(&input.path).map_err(|error| Failure::io("read", &input.path, error))?;
            inputs.insert(format!("{} {}", input.key, input.path.display()), digest);
        }
    }
    let mut stages = BTreeMap::new();
    for stage in earlier.iter().filter(|stage| planned.reads.contains(&stage.name)) {
        // A stage that is left as it is counts with what it was run with.
        let digest = match state.stages.get(&stage.name) {
            Some(record) if !stage.selected && record.status == Status::Done => &record.fingerprint.digest,
            _ => &stage.fingerprint.digest,
        };
        stages.insert(stage.name.clone(), digest.clone());
    }
    Ok(Fingerprint::new(settings, inputs, stages))
}

fn standing(planned: &Planned, record: Option<&Record>) -> Standing {
    let Some(record) = record else { return Standing::ToDo };
    if !planned.selected {
        return match record.status {
            Status::Done => Standing::Done,
            _ => Standing::Unfinished,
        };
    }
    let mut reasons = planned.fingerprint.changes_since(&record.fingerprint);
    if record.status == Status::Done {
        for file in record.result.files.iter().filter(|file| !file.exists()) {
            reasons.push(format!("its output {} is missing", file.display()));
        }
        if matches!(planned.stage, Stage::Generate(_)) {
            reasons.extend(lost(&record.result));
        }
    }
    match (reasons.is_empty(), record.status) {
        (true, Status::Done) => Standing::Done,
        (true, _) => Standing::Unfinished,
        (false, _) => Standing::Stale(reasons),
    }
}

/// Why pieces that were all written are not all there any more.
fn lost(result: &Outputs) -> Option<String> {
    let written = result.facts.get("pieces")?.as_u64()?;
    let folder = result.files.iter().find(|folder| folder.ends_with("original"))?;
    let is_piece = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|end| end == "abc");
    let there = fs::read_dir(folder).ok()?.flatten().filter(is_piece).count() as u64;
    (there < written).then(|| format!("{} of its {written} pieces are missing", written - there))
}
