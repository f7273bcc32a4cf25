//! Training of M3, the music encoder of CLaMP 2, by masked patches (the original's `code/train_m3.py`).
use model::m3;
use trainer::M3Params;

use crate::common::failure::{Failure, Result};
use crate::recipe::M3;
use crate::stages::context::{Context, Ended};
use crate::stages::training::{Watch, ended, settle};

/// Build, resume, run.
pub fn run(stage: &M3, context: &mut Context) -> Result<Ended> {
    let mut settings = stage.settings(context.plan.recipe.seed);
    settle(&mut settings, context, || {
        stage.steps.map(u64::from).ok_or_else(|| {
            Failure::usage("a wsd schedule of an m3 stage needs `steps`, or `decay_steps` instead of `decay_fraction`")
        })
    })?;
    let m3 = M3Params {
        train: stage.train.clone(),
        eval: stage.eval.clone(),
        eval_split: stage.eval_split.get(),
        pieces: stage.pieces.clone(),
        mask_ratio: stage.mask_ratio.get(),
    };
    let model = m3::M3::new(&stage.architecture(), context.device, settings.seed)?;
    torch_ext::keep_freed_memory();
    let mut watch = Watch::new(context.reporter);
    ended(trainer::m3::train(&settings, &m3, &model, context.folder, context.stop, &mut watch))
}
