//! Direct preference optimisation (the original's `RL/train.py`).
use serde_json::{Map, Value};
use trainer::{DpoSettings, Length, Outcome, Settings};

use crate::{
    common::{
        failure::{Failure, Result},
        loading,
    },
    plan::{Planned, products, state::Outputs},
    recipe::Dpo,
    stages::{
        context::{Context, Ended},
        training::{Watch, size},
    },
};

/// Load, build, resume, run.
pub fn run(stage: &Dpo, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let dtype = stage.precision.unwrap_or_default().dtype();
    let settings = Settings {
        seed: context.plan.recipe.seed,
        precision: dtype.into(),
        learning_rate: stage.learning_rate.get(),
        batch_size: size(stage.batch_size.get())?,
        accumulation_steps: size(stage.accumulation_steps.get())?,
        length: Length::Steps(stage.steps.get()),
        early_stopping: None,
        schedule: trainer::Schedule::Constant,
        warmup_steps: 0,
        weight_decay: stage.weight_decay.get(),
        max_grad_norm: stage.max_grad_norm.map(|norm| norm.get()),
        checkpoint_every: stage.checkpoint_every.get(),
        keep_checkpoints: size(stage.keep_checkpoints.get())?,
        evaluate_every: None,
        log_every: stage.log_every.get(),
        activation_checkpointing: stage.activation_checkpointing,
        gradient_precision: stage.gradient_precision.into(),
        shard_optimizer: stage.shard_optimizer,
        optimizer_offload: stage.optimizer_offload,
        resume_from: None,
        workers: 2,
        profile: context.profile,
        peak: products::of(context.device, dtype),
        ranks: context.team.ranks(context.device)?,
    };
    let dpo = DpoSettings {
        preferences: stage.preferences.clone(),
        beta: stage.beta.get(),
        lambda: stage.lambda.get(),
        dropout: stage.dropout,
    };
    let init = planned.init.as_ref().ok_or_else(|| Failure::usage("the key `init` is missing"))?;
    let path = context.weights(init)?;
    context.reporter.say(format!("starts from {}", path.display()));
    let model = loading::load(&path, context.plan.architecture.as_ref(), context.device)?;
    torch_ext::keep_freed_memory();
    let mut watch = Watch::new(context.reporter);
    let outcome = trainer::dpo::train(&settings, &dpo, &model, context.folder, context.stop, &mut watch)?;
    let Outcome::Finished(report) = outcome else { return Ok(Ended::Interrupted) };
    context.reporter.say(format!(
        "loss {:.4}, accuracy {:.0} %, margin {:.3}; log-probability of the chosen {:.1} → {:.1}, of the rejected {:.1} → {:.1}",
        report.loss,
        report.accuracy * 100.0,
        report.margin,
        report.chosen_logp_start,
        report.chosen_logp_end,
        report.rejected_logp_start,
        report.rejected_logp_end
    ));
    if report.chosen_logp_end < report.chosen_logp_start {
        context.reporter.warn("the chosen pieces have become less likely: a larger lambda or fewer steps may help");
    }
    let facts = match serde_json::to_value(&report) {
        Ok(Value::Object(facts)) => facts,
        _ => Map::new(),
    };
    Ok(Ended::Done(Outputs {
        files: vec![report.best.clone()],
        weights: Some(report.best),
        facts,
        ..Outputs::default()
    }))
}
