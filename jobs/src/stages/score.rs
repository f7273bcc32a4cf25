//! The average CLaMP 2 score of generated pieces against reference pieces (the original's `clamp2/statistics.py`).
use std::path::Path;

use serde_json::{Map, Value, json};
use tensorboard_rs::summary_writer::SummaryWriter;
use trainer::preference::{Distribution, scores};

use crate::common::failure::Result;
use crate::common::files;
use crate::plan::Planned;
use crate::plan::state::Outputs;
use crate::recipe::{Score, Stage};
use crate::stages::context::{Context, Ended};
use crate::stages::features::FeatureSet;

pub fn run(stage: &Score, planned: &Planned, context: &mut Context) -> Result<Ended> {
    let facts = score(&stage.reference, &stage.generated)?;
    let path = context.folder.join("score.json");
    let average = facts["average_clamp2_score"].as_f64().unwrap_or(0.0);
    files::save_json(&path, &facts)?;
    let round = stage.round.unwrap_or(0);
    plot(stage.plot.as_deref().unwrap_or(context.folder), round, &facts)?;
    context.reporter.say(format!("average CLaMP 2 score {average:.4} over {} pieces", facts["pieces"]));
    if let Some(before) = before(stage, planned, context)
        && average < before
    {
        context.reporter.warn(format!(
            "the average score fell from {before:.4} to {average:.4}: look at chosen log-probability and accuracy \
             of the round before; fewer steps or a lower learning rate of dpo may help"
        ));
    }
    let mut outputs = Outputs::new(vec![path], &facts);
    outputs.facts.remove("histogram");
    outputs.facts.insert("round".to_owned(), json!(stage.round));
    Ok(Ended::Done(outputs))
}

/// The score of a folder of features against another: average, spread, histogram.
pub fn score(reference: &Path, generated: &Path) -> Result<Value> {
    let (reference, generated) = (FeatureSet::read(reference)?, FeatureSet::read(generated)?);
    let distribution = Distribution::of(&scores(&reference.features, &generated.features)?)?;
    let quantiles: Map<String, Value> = trainer::preference::QUANTILES
        .iter()
        .zip(distribution.quantiles)
        .map(|(portion, score)| (format!("{portion}"), json!(score)))
        .collect();
    Ok(json!({
        "average_clamp2_score": distribution.average,
        "pieces": generated.names.len(),
        "references": reference.names.len(),
        "deviation": distribution.deviation,
        "quantiles": quantiles,
        "histogram": distribution.histogram,
    }))
}

/// The average score of the round before.
fn before(stage: &Score, planned: &Planned, context: &Context) -> Option<f64> {
    let round = stage.round?.checked_sub(1)?;
    let earlier = context.plan.stages.iter().take_while(|earlier| earlier.name != planned.name).find(|earlier| {
        matches!(&earlier.stage, Stage::Score(score) if score.round == Some(round) && score.plot == stage.plot)
    })?;
    context.state.stages.get(&earlier.name)?.result.facts.get("average_clamp2_score")?.as_f64()
}

/// One point of the curve over the rounds. All rounds write to one folder, which TensorBoard shows as one curve.
fn plot(folder: &Path, round: u64, facts: &Value) -> Result<()> {
    // The writer panics where it cannot create its folder: create it first, where failure can be told.
    let folder = folder.join(format!("score-{round}"));
    files::make_folder(&folder)?;
    let mut board = SummaryWriter::new(&folder);
    let step = usize::try_from(round).unwrap_or(usize::MAX);
    for (tag, value) in [
        ("clamp2_score/average", &facts["average_clamp2_score"]),
        ("clamp2_score/median", &facts["quantiles"]["0.5"]),
        ("clamp2_score/deviation", &facts["deviation"]),
    ] {
        board.add_scalar(tag, value.as_f64().unwrap_or(f64::NAN) as f32, step);
    }
    board.flush();
    Ok(())
}
