//! Training: pretrain, post_train and finetune.
use model::NotaGen;

use crate::common::failure::{Failure, Result};
use crate::common::loading;
use crate::plan::Planned;
use crate::plan::cost::Cost;
use crate::recipe::Training;
use crate::stages::context::{Context, Ended};
use crate::stages::listen::Listen;
use crate::stages::training::{Watch, ended, settle};

/// Load, build, resume, run.
pub fn run(stage: &Training, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let architecture = context.plan.architecture.clone().ok_or_else(|| Failure::usage("the key `model` is missing"))?;
    let processes = context.team.size() as u64;
    let mut settings = stage.settings(context.plan.recipe.seed);
    settings.resume_from.clone_from(&stage.resume_from);
    settle(&mut settings, context, || {
        let steps = Cost::of(stage, &architecture, false).steps;
        let steps = match stage.steps {
            Some(steps) => Some(steps.into()),
            None => steps.map(|steps| steps.div_ceil(processes)),
        };
        steps.ok_or_else(|| Failure::failed(format!("{}: no pieces to train on", stage.train.display())))
    })?;
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
        precision: settings.precision,
        seed: context.plan.recipe.seed,
        folder: context.folder.join("samples"),
        stop: context.stop,
    });
    let mut watch = Watch::listening(context.reporter, listen);
    ended(trainer::language::train(&settings, &stage.language(), &model, context.folder, context.stop, &mut watch))
}
