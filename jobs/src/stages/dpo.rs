//! Direct preference optimisation (the original's `RL/train.py`).
use trainer::Outcome;

use crate::common::failure::{Failure, Result};
use crate::common::loading;
use crate::plan::Planned;
use crate::plan::state::Outputs;
use crate::recipe::Dpo;
use crate::stages::context::{Context, Ended};
use crate::stages::training::{Watch, settle};

/// Load, build, resume, run.
pub fn run(stage: &Dpo, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let mut settings = stage.settings(context.plan.recipe.seed);
    settle(&mut settings, context, || Ok(stage.steps.get()))?;
    let init = planned.init.as_ref().ok_or_else(|| Failure::usage("the key `init` is missing"))?;
    let path = context.weights(init)?;
    context.reporter.say(format!("starts from {}", path.display()));
    let model = loading::load(&path, context.plan.architecture.as_ref(), context.device)?;
    torch_ext::keep_freed_memory();
    let mut watch = Watch::new(context.reporter);
    let outcome =
        trainer::dpo::train(&settings, &stage.preference(), &model, context.folder, context.stop, &mut watch)?;
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
    let outputs = Outputs::new(vec![report.best.clone()], &report);
    Ok(Ended::Done(Outputs { weights: Some(report.best), ..outputs }))
}
