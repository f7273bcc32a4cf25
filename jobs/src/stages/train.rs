//! Training: pretrain, post_train and finetune.
use model::NotaGen;
use trainer::LanguageSettings;

use crate::{
    common::{
        failure::{Failure, Result},
        loading,
    },
    plan::{Planned, cost::Cost},
    recipe::{KeyAugmentation, Training},
    stages::{
        context::{Context, Ended},
        listen::Listen,
        training::{Watch, ended, settings, size},
    },
};

/// Load, build, resume, run.
pub fn run(stage: &Training, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let architecture = context.plan.architecture.clone().ok_or_else(|| Failure::usage("the key `model` is missing"))?;
    let processes = context.team.size() as u64;
    let mut settings = settings(&stage.course(), context.plan.recipe.seed, context.device, || {
        let steps = Cost::of(stage, &architecture, false).steps;
        let steps = match stage.steps {
            Some(steps) => Some(steps.into()),
            None => steps.map(|steps| steps.div_ceil(processes)),
        };
        steps.ok_or_else(|| Failure::failed(format!("{}: no pieces to train on", stage.train.display())))
    })?;
    settings.resume_from.clone_from(&stage.resume_from);
    settings.ranks = context.team.ranks(context.device)?;
    settings.profile = context.profile;
    let language = language(stage)?;
    let model = match &planned.init {
        None => {
            context.reporter.say("starts from scratch");
            NotaGen::new(&architecture, context.device, settings.seed)?
        }
        Some(init) => {
            let path = context.weights(init)?;
            context.reporter.say(format!("starts from {}", path.display()));
            loading::load(&path, Some(&architecture), context.device)?
        }
    };
    torch_ext::keep_freed_memory();
    let listen = stage.listen.as_ref().map(|listen| Listen {
        settings: listen,
        model: &model,
        precision: stage.precision.unwrap_or_default().dtype(),
        seed: context.plan.recipe.seed,
        folder: context.folder.join("samples"),
        stop: context.stop,
    });
    let mut watch = Watch::listening(context.reporter, listen);
    ended(trainer::language::train(&settings, &language, &model, context.folder, context.stop, &mut watch))
}

fn language(stage: &Training) -> Result<LanguageSettings> {
    let keys = stage.key_augmentation.ok_or_else(|| Failure::usage("the key `key_augmentation` is not resolved"))?;
    Ok(LanguageSettings {
        train: stage.train.clone(),
        eval: stage.eval.clone(),
        pieces: stage.pieces.clone(),
        eval_pieces: stage.eval_pieces.clone(),
        key_augmentation: match keys {
            KeyAugmentation::All => trainer::KeyAugmentation::All,
            KeyAugmentation::Nearby => trainer::KeyAugmentation::Nearby,
            KeyAugmentation::None => trainer::KeyAugmentation::None,
        },
        batch_by: stage.batch_by.into(),
        patch_sampling: (stage.patch_sampling > 0).then(|| size(stage.patch_sampling)).transpose()?,
    })
}
