//! Do the keys of a recipe go together? Looks at no file but the recipe.
use model::number::Portion;
use model::sampling::Sampling;

use crate::common::failure::{Failure, Result};
use crate::common::nearest;
use crate::recipe::{By, Generate, Init, M3, Preprocess, Recipe, Rl, Select, Stage, Training, check_parts};

/// Checks a resolved recipe.
///
/// # Errors
/// A usage failure that names the stage and the key.
pub fn check(recipe: &Recipe) -> Result<()> {
    if recipe.model.is_none()
        && let Some(stage) = recipe.stages.iter().find(|stage| stage.training().is_some())
    {
        let name = stage.name().map_or("", String::as_str);
        return Err(Failure::usage(format!("the key `model` is missing: stage `{name}` trains one"))
            .hint("model: small, medium, large or {patch_length, patch_layers, char_layers, hidden_size, dropout}"));
    }
    let (mut networks, mut judges): (Vec<&str>, Vec<&str>) = Default::default();
    for stage in &recipe.stages {
        let name = stage.name().map_or("", String::as_str);
        let checked = weights(stage, &networks, &judges).and_then(|()| keys(stage).map_err(Failure::usage));
        checked.map_err(|failure| failure.of(&format!("stage `{name}`")))?;
        if stage.makes_weights() {
            networks.push(name);
        }
        if matches!(stage, Stage::M3(_)) {
            judges.push(name);
        }
    }
    Ok(())
}

/// The weights that a stage reads: of stages before it, or of files.
fn weights(stage: &Stage, networks: &[&str], judges: &[&str]) -> Result<()> {
    let resumes = stage.training().is_some_and(|training| training.resume_from.is_some());
    match stage.init() {
        Some(Some(_)) if resumes => {
            return Err(Failure::usage("both `init` and `resume_from` are given: keep one"));
        }
        Some(Some(text)) => made_before(&text, networks, ["stage called", "makes weights"], "no earlier stage trains")
            .map_err(|failure| failure.of("`init`"))?,
        Some(None) if !resumes && !matches!(stage, Stage::Pretrain(_)) => {
            return Err(Failure::usage("the key `init` is missing, and no earlier stage trains")
                .hint("init: a path, hf://owner/repo/file, or put a training stage before it"));
        }
        _ => {}
    }
    stage
        .judge()
        .map_or(Ok(()), |judge| made_before(judge, judges, ["m3 stage is called", ""], "put an m3 stage before it"))
}

/// Weights are those of an earlier stage, or no stage's.
fn made_before(text: &str, earlier: &[&str], [what, does]: [&str; 2], none: &str) -> Result<()> {
    match Init::parse(text).map_err(Failure::usage)? {
        Init::Stage(name) if !earlier.contains(&name.as_str()) => {
            let hint = if earlier.is_empty() { none.to_owned() } else { nearest::hint(&name, earlier.iter().copied()) };
            Err(Failure::usage(format!("no earlier {what} `{name}` {does}")).hint(hint))
        }
        _ => Ok(()),
    }
}

fn keys(stage: &Stage) -> Result<(), String> {
    match stage {
        Stage::Preprocess(stage) => preprocess(stage),
        Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => training(stage),
        Stage::M3(stage) => m3(stage),
        Stage::Generate(stage) => generate(stage),
        Stage::Rl(stage) => rl(stage),
        Stage::Prefer(stage) => portion(stage.select),
        Stage::Dpo(stage) => check_parts(stage.batch_size, stage.accumulation_steps),
        Stage::Select(stage) => select(stage),
        Stage::Features(_) | Stage::Score(_) => Ok(()),
    }
}

fn preprocess(stage: &Preprocess) -> Result<(), String> {
    split(stage.eval_split)?;
    match (&stage.interleaved, &stage.pack) {
        (None, None) => Err("neither `interleaved` nor `pack` is given".to_owned()),
        _ => Ok(()),
    }
}

fn training(stage: &Training) -> Result<(), String> {
    stage.check_keys()?;
    if stage.eval.is_none() && (stage.early_stopping.is_some() || stage.evaluate_every.is_some()) {
        return Err("`early_stopping` and `evaluate_every` need `eval`".to_owned());
    }
    let Some(listen) = &stage.listen else { return Ok(()) };
    writing(listen.prompts.as_ref(), &listen.sampling).map_err(|message| format!("`listen`: {message}"))
}

fn m3(stage: &M3) -> Result<(), String> {
    stage.check_keys()?;
    stage.architecture().check().map_err(|error| error.to_string())?;
    if stage.eval.is_none() { split(stage.eval_split) } else { Ok(()) }
}

fn generate(stage: &Generate) -> Result<(), String> {
    if stage.prompt.is_some() && stage.prompts.is_some() {
        return Err("both `prompt` and `prompts` are given: keep one".to_owned());
    }
    prompts(&stage.prompt)?;
    writing(stage.prompts.as_ref(), &stage.sampling)
}

/// Before its rounds become stages of their own.
pub fn rl(stage: &Rl) -> Result<(), String> {
    portion(stage.select)?;
    if trainer::preference::portion(stage.samples.get(), stage.select.get()) == 0 {
        return Err(format!("`select` {} of {} `samples` is no piece", stage.select.get(), stage.samples));
    }
    writing(stage.prompts.as_ref(), &stage.sampling)?;
    let parts = stage.dpo.as_ref().map_or(Ok(()), |dpo| check_parts(dpo.batch_size, dpo.accumulation_steps));
    parts.map_err(|message| format!("`dpo`: {message}"))
}

fn split(portion: Portion) -> Result<(), String> {
    if portion.get() >= 1.0 { Err("`eval_split` leaves nothing to train on".to_owned()) } else { Ok(()) }
}

fn portion(select: Portion) -> Result<(), String> {
    if select.get() > 0.5 { Err("`select` is above 0.5: chosen and rejected would overlap".to_owned()) } else { Ok(()) }
}

/// What music is begun with, and how it is drawn.
fn writing(of: Option<&Vec<String>>, sampling: &Sampling) -> Result<(), String> {
    if of.is_some_and(Vec::is_empty) {
        return Err("`prompts` is empty".to_owned());
    }
    prompts(of.into_iter().flatten())?;
    if sampling.top_p == 0.0 {
        return Err("`top_p` is 0: nothing would be left to draw from".to_owned());
    }
    Ok(())
}

/// How many pieces to choose, and by what.
fn select(stage: &Select) -> Result<(), String> {
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

/// Prompts that no network can read.
pub fn prompts<'a>(prompts: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    for prompt in prompts {
        if let Some(character) = prompt.chars().find(|character| !matches!(character, ' '..='~')) {
            return Err(format!(
                "the prompt {prompt:?} has {character:?} in it, which no network knows: plain ASCII only"
            ));
        }
    }
    Ok(())
}
