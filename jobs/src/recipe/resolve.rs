//! From a recipe as given to one with every default filled in, checked for sense. Looks at no file but the recipe.
use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use model::Architecture;

use crate::{
    common::{
        failure::{Failure, Result},
        near,
    },
    hub::reference::Reference,
    recipe::{
        By, Dimensions, Generate, KeyAugmentation, Keys, M3, Model, Portion, Recipe, Rl, Sampling, Select, Size, Stage,
        Training, check_parts, overrides, paths::indexes, rounds,
    },
};

/// A recipe with nothing left out, and its network.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub recipe: Recipe,
    /// The names of the stages, of those that come in parts the names of their parts.
    pub names: Vec<String>,
    /// The names of the stages as the recipe has them.
    pub given: Vec<String>,
    /// The network that the training stages train.
    pub architecture: Option<Architecture>,
}

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// A file; the text is as the recipe gives it.
    File(PathBuf),
    /// `hf://owner/repo/file`: the file of that name in checkpoints/, fetched if it is not there.
    Hub(Reference),
    /// The weights that an earlier stage makes.
    Stage(String),
}

impl Init {
    /// # Errors
    /// The text after `hf://` is not `owner/repo/file`.
    pub fn parse(text: &str) -> Result<Init, String> {
        if let Some(name) = text.strip_prefix("stage:") {
            return Ok(Init::Stage(name.to_owned()));
        }
        match Reference::parse(text) {
            Some(reference) => Ok(Init::Hub(reference?)),
            None => Ok(Init::File(PathBuf::from(text))),
        }
    }

    /// The file on this machine, unless a stage makes it.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Init::File(path) => Some(path.clone()),
            Init::Hub(reference) => Some(reference.path()),
            Init::Stage(_) => None,
        }
    }
}

/// Fills in every default and checks that the keys go together.
///
/// # Errors
/// A usage failure that names the recipe, the stage and the key.
pub fn resolve(path: &Path, recipe: Recipe) -> Result<Resolved> {
    let wrong = |message: String| Failure::usage(format!("{}: {message}", path.display()));
    check_name("name", &recipe.name).map_err(wrong)?;
    if recipe.stages.is_empty() {
        return Err(wrong("`stages` is empty".to_owned()).hint(format!("kinds of stages: {}", Stage::KINDS.join(", "))));
    }
    let names = overrides::names(&recipe);
    for (index, name) in names.iter().enumerate() {
        check_name("the name of a stage", name).map_err(wrong)?;
        if names[..index].contains(name) {
            return Err(wrong(format!("two stages are called `{name}`")).hint("give one of them another `name`"));
        }
    }
    for (stage, name) in recipe.stages.iter().zip(&names) {
        if let Stage::Rl(rl) = stage {
            resolve_rl(rl).map_err(|message| wrong(format!("stage `{name}`: {message}")))?;
        }
    }
    let given = names;
    let mut recipe = rounds::expand(recipe);
    let names = overrides::names(&recipe);
    let architecture = recipe.model.as_ref().map(|model| architecture(model).map_err(wrong)).transpose()?;
    if let Some(index) = recipe.stages.iter().position(|stage| stage.training().is_some())
        && architecture.is_none()
    {
        return Err(wrong(format!("the key `model` is missing: stage `{}` trains one", names[index]))
            .hint("model: small, medium, large or {patch_length, patch_layers, char_layers, hidden_size, dropout}"));
    }
    let (run, seed, precision) = (recipe.name.clone(), recipe.seed, recipe.precision);
    let makers: Vec<bool> = recipe.stages.iter().map(Stage::makes_weights).collect();
    let encoders: Vec<bool> = recipe.stages.iter().map(|stage| matches!(stage, Stage::M3(_))).collect();
    for (index, stage) in recipe.stages.iter_mut().enumerate() {
        let name = &names[index];
        let of_stage = |message: String| wrong(format!("stage `{name}`: {message}"));
        *stage.name() = Some(name.clone());
        let earlier: Vec<&str> = (0..index).filter(|at| makers[*at]).map(|at| names[at].as_str()).collect();
        let resumes = stage.training().is_some_and(|training| training.resume_from.is_some());
        let scratch = matches!(stage, Stage::Pretrain(_)) || resumes;
        if let Some(init) = stage.init() {
            if resumes && init.is_some() {
                return Err(of_stage("both `init` and `resume_from` are given: keep one".to_owned()));
            }
            let earlier = if resumes { &[][..] } else { &earlier };
            resolve_init(init, earlier, scratch).map_err(|(message, hint)| of_stage(message).hint_if(hint))?;
        }
        if let Some(judge) = stage.judge() {
            let earlier: Vec<&str> = (0..index).filter(|at| encoders[*at]).map(|at| names[at].as_str()).collect();
            check_judge(judge, &earlier).map_err(|(message, hint)| of_stage(message).hint_if(hint))?;
        }
        let kind = stage.kind();
        match stage {
            Stage::Preprocess(stage) => {
                stage.seed.get_or_insert(seed);
                if stage.eval_split.get() >= 1.0 {
                    return Err(of_stage("`eval_split` leaves nothing to train on".to_owned()));
                }
                if stage.interleaved.is_none() && stage.pack.is_none() {
                    return Err(of_stage("neither `interleaved` nor `pack` is given".to_owned()));
                }
            }
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => {
                stage.precision.get_or_insert(precision);
                stage.tag.get_or_insert_with(|| format!("{run}-{name}"));
                resolve_training(stage, kind).map_err(of_stage)?;
            }
            Stage::Generate(stage) => {
                stage.precision.get_or_insert(precision);
                stage.seed.get_or_insert(seed);
                resolve_generate(stage).map_err(of_stage)?;
            }
            Stage::M3(stage) => {
                stage.precision.get_or_insert(precision);
                stage.tag.get_or_insert_with(|| format!("{run}-{name}"));
                resolve_m3(stage).map_err(of_stage)?;
            }
            Stage::Prefer(stage) => check_select(stage.select).map_err(of_stage)?,
            Stage::Dpo(stage) => {
                stage.precision.get_or_insert(precision);
                stage.tag.get_or_insert_with(|| format!("{run}-{name}"));
                check_parts(stage.batch_size, stage.accumulation_steps).map_err(of_stage)?;
            }
            Stage::Select(stage) => {
                stage.precision.get_or_insert(precision);
                check_choice(stage).map_err(of_stage)?;
            }
            Stage::Rl(_) | Stage::Features(_) | Stage::Score(_) => {}
        }
    }
    fill_keys(&mut recipe);
    Ok(Resolved { recipe, names, given, architecture })
}

/// A preprocess stage that does not say so writes the keys that are asked for: all, as the original does, or each
/// piece's own where the stages that train on them want no other. One that packs writes none.
fn fill_keys(recipe: &mut Recipe) {
    for index in 0..recipe.stages.len() {
        let (before, after) = recipe.stages.split_at_mut(index + 1);
        let Some(Stage::Preprocess(stage)) = before.last_mut() else { continue };
        let mut written = indexes(&stage.augmented).to_vec();
        let mut readers = Vec::new();
        for stage in after.iter() {
            match stage {
                // The pieces that it chooses are the same files.
                Stage::Select(stage) if written.contains(&stage.corpus) => written.push(stage.output.clone()),
                stage => readers.extend(stage.training().filter(|reader| written.contains(&reader.train))),
            }
        }
        let own =
            !readers.is_empty() && readers.iter().all(|reader| reader.key_augmentation == Some(KeyAugmentation::None));
        let asked = if own { Keys::Original } else { Keys::All };
        stage.keys.get_or_insert(if stage.pack.is_some() { Keys::None } else { asked });
    }
}

/// A name becomes a folder and part of a file's name.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(format!("{what} `{name}` is not a plain word (letters, digits, - _ .)"));
    }
    Ok(())
}

fn resolve_init(init: &mut Option<String>, earlier: &[&str], scratch: bool) -> Result<(), (String, Option<String>)> {
    match init {
        Some(text) => {
            if let Init::Stage(name) = Init::parse(text).map_err(|message| (format!("`init`: {message}"), None))?
                && !earlier.contains(&name.as_str())
            {
                let hint = if earlier.is_empty() {
                    "no earlier stage trains".to_owned()
                } else {
                    near::hint(&name, earlier.iter().copied())
                };
                return Err((format!("`init`: no earlier stage called `{name}` makes weights"), Some(hint)));
            }
        }
        None => match earlier.last() {
            Some(name) => *init = Some(format!("stage:{name}")),
            None if scratch => {}
            None => {
                let hint = "init: a path, hf://owner/repo/file, or put a training stage before it";
                return Err((
                    "the key `init` is missing, and no earlier stage trains".to_owned(),
                    Some(hint.to_owned()),
                ));
            }
        },
    }
    Ok(())
}

fn resolve_training(stage: &mut Training, kind: &str) -> Result<(), String> {
    // The original's pretrain/config.py and finetune/config.py.
    let (keys, learning_rate, batch_size, epochs) = match kind {
        "pretrain" => (KeyAugmentation::All, 1e-4, 4, 128),
        "post_train" => (KeyAugmentation::All, 1e-5, 1, 128),
        _ => (KeyAugmentation::Nearby, 1e-5, 1, 64),
    };
    stage.key_augmentation.get_or_insert(keys);
    stage.resolve_course(learning_rate, batch_size, epochs)?;
    if stage.eval.is_none() && (stage.early_stopping.is_some() || stage.evaluate_every.is_some()) {
        return Err("`early_stopping` and `evaluate_every` need `eval`".to_owned());
    }
    if stage.eval_pieces.is_none() {
        stage.eval_pieces.clone_from(&stage.pieces);
    }
    match &stage.listen {
        Some(listen) if listen.prompts.as_ref().is_some_and(Vec::is_empty) => {
            Err("`listen`: `prompts` is empty".to_owned())
        }
        Some(listen) => check_prompts(listen.prompts.iter().flatten())
            .and_then(|()| check_sampling(&listen.sampling))
            .map_err(|message| format!("`listen`: {message}")),
        None => Ok(()),
    }
}

fn resolve_generate(stage: &mut Generate) -> Result<(), String> {
    if stage.prompt.is_some() && stage.prompts.is_some() {
        return Err("both `prompt` and `prompts` are given: keep one".to_owned());
    }
    if stage.prompts.as_ref().is_some_and(Vec::is_empty) {
        return Err("`prompts` is empty".to_owned());
    }
    check_prompts(stage.prompt.iter().chain(stage.prompts.iter().flatten()))?;
    check_sampling(&stage.sampling)
}

fn check_sampling(sampling: &Sampling) -> Result<(), String> {
    if sampling.top_p.get() == 0.0 {
        return Err("`top_p` is 0: nothing would be left to draw from".to_owned());
    }
    Ok(())
}

/// How many pieces to choose, and by what.
fn check_choice(stage: &Select) -> Result<(), String> {
    match (stage.count, stage.portion, stage.threshold) {
        (Some(_), Some(_), _) => return Err("both `count` and `portion` are given: keep one".to_owned()),
        (None, None, None) => return Err("one of `count`, `portion` and `threshold` is needed".to_owned()),
        (_, Some(portion), _) if portion.get() == 0.0 => return Err("`portion` is 0: nothing to choose".to_owned()),
        (.., Some(threshold)) if !threshold.is_finite() => return Err("`threshold` is not a number".to_owned()),
        _ => {}
    }
    match (&stage.clamp2, &stage.reference, stage.by) {
        (None, None, By::Clamp2) => Err("`by: clamp2` needs `clamp2` and `reference`".to_owned()),
        (Some(_), None, _) | (None, Some(_), _) => Err("`clamp2` and `reference` go together".to_owned()),
        _ => Ok(()),
    }
}

/// The original's `code/config.py` of CLaMP 2.
fn resolve_m3(stage: &mut M3) -> Result<(), String> {
    stage.resolve_course(1e-4, 16, 100)?;
    stage.architecture().check().map_err(|error| error.to_string())?;
    if stage.eval.is_none() && stage.eval_split.get() >= 1.0 {
        return Err("`eval_split` leaves nothing to train on".to_owned());
    }
    Ok(())
}

fn resolve_rl(stage: &Rl) -> Result<(), String> {
    check_select(stage.select)?;
    let pieces =
        trainer::preference::portion(usize::try_from(stage.samples.get()).unwrap_or(usize::MAX), stage.select.get());
    if pieces == 0 {
        return Err(format!("`select` {} of {} `samples` is no piece", stage.select.get(), stage.samples));
    }
    if stage.prompts.as_ref().is_some_and(Vec::is_empty) {
        return Err("`prompts` is empty".to_owned());
    }
    check_prompts(stage.prompts.iter().flatten())?;
    check_parts(stage.dpo.batch_size, stage.dpo.accumulation_steps).map_err(|message| format!("`dpo`: {message}"))
}

/// The weights of CLaMP 2 or M3: a file, or an earlier m3 stage's.
fn check_judge(text: &str, earlier: &[&str]) -> Result<(), (String, Option<String>)> {
    match Init::parse(text) {
        Err(message) => Err((message, None)),
        Ok(Init::Stage(name)) if !earlier.contains(&name.as_str()) => {
            let hint = if earlier.is_empty() {
                "put an m3 stage before it".to_owned()
            } else {
                near::hint(&name, earlier.iter().copied())
            };
            Err((format!("no earlier m3 stage is called `{name}`"), Some(hint)))
        }
        Ok(_) => Ok(()),
    }
}

fn check_select(select: Portion) -> Result<(), String> {
    if select.get() > 0.5 { Err("`select` is above 0.5: chosen and rejected would overlap".to_owned()) } else { Ok(()) }
}

/// The network that the key `model` describes.
fn architecture(model: &Model) -> Result<Architecture, String> {
    let Dimensions { base, patch_length, patch_layers, char_layers, hidden_size, dropout } = match model {
        Model::Size(size) => return Ok(size.architecture()),
        Model::Dimensions(dimensions) => dimensions.clone(),
    };
    let base = base.unwrap_or(Size::Small).architecture();
    let or = |given: Option<NonZeroU64>, base: i64| match given {
        Some(number) => i64::try_from(number.get()).map_err(|_| format!("`model`: {number} is too large")),
        None => Ok(base),
    };
    let architecture = Architecture {
        patch_size: base.patch_size,
        patch_length: or(patch_length, base.patch_length)?,
        patch_layers: or(patch_layers, base.patch_layers)?,
        char_layers: or(char_layers, base.char_layers)?,
        hidden_size: or(hidden_size, base.hidden_size)?,
        dropout: dropout.map_or(base.dropout, Portion::get),
    };
    architecture.check().map_err(|error| error.to_string())?;
    Ok(architecture)
}

/// Prompts that no network can read.
pub fn check_prompts<'a>(prompts: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    for prompt in prompts {
        if let Some(character) = prompt.chars().find(|character| !matches!(character, ' '..='~')) {
            return Err(format!(
                "the prompt {prompt:?} has {character:?} in it, which no network knows: plain ASCII only"
            ));
        }
    }
    Ok(())
}
