//! `rl` in its parts: every round generates, takes features, scores, prefers and optimises, each a stage of its own.
use std::path::PathBuf;

use trainer::Precision;

use crate::common::failure::{Failure, Result};
use crate::recipe::paths::run_folder;
use crate::recipe::{DpoKeys, Features, Generate, Prefer, Recipe, Rl, Score, Stage, check};

/// The recipe with each `rl` stage replaced by its parts, NAME.ROUND.PART, which write to `runs/RUN/NAME/`; what
/// names the stage's weights names those of its last round.
///
/// # Errors
/// A usage failure: what is wrong with the keys of an `rl` stage.
pub fn expand(recipe: &mut Recipe) -> Result<()> {
    let mut last: Vec<(String, String)> = Vec::new();
    for mut stage in std::mem::take(&mut recipe.stages) {
        if let Some(Some(init)) = stage.init_key()
            && let Some((_, weights)) = last.iter().find(|(rl, _)| *init == format!("stage:{rl}"))
        {
            *init = format!("stage:{weights}");
        }
        let Stage::Rl(rl) = stage else {
            recipe.stages.push(stage);
            continue;
        };
        let name = rl.name.clone().unwrap_or_default();
        check::rl(&rl).map_err(|message| Failure::usage(format!("stage `{name}`: {message}")))?;
        last.push((name.clone(), format!("{name}.{}.dpo", rl.rounds)));
        recipe.stages.extend(parts(&rl, &name, recipe)?);
    }
    Ok(())
}

/// The words of a part's name: the stage, the round and the part. The reference's features belong to no round.
pub fn part_of(name: &str) -> Option<(&str, &str, &str)> {
    let (before, part) = name.rsplit_once('.')?;
    if part == REFERENCE {
        return Some((before, "", part));
    }
    let (stage, round) = before.rsplit_once('.')?;
    let is_part = PARTS.contains(&part) && (round == FINAL || round.parse::<u64>().is_ok());
    is_part.then_some((stage, round, part))
}

const REFERENCE: &str = "reference";
const FINAL: &str = "final";
const PARTS: [&str; 5] = ["generate", "features", "score", "prefer", "dpo"];

fn parts(rl: &Rl, name: &str, recipe: &Recipe) -> Result<Vec<Stage>> {
    let dpo = match &rl.dpo {
        Some(keys) => keys.clone(),
        None => DpoKeys::all_left_out().map_err(|error| Failure::failed(error.to_string()))?,
    };
    let folder = run_folder(&recipe.name).join(name);
    let reference = folder.join(REFERENCE);
    let features = |part: String, input: PathBuf, pieces: Option<String>, output: PathBuf| {
        Stage::Features(Features {
            name: Some(part),
            resources: rl.resources.clone(),
            weights: rl.clamp2.clone(),
            input,
            pieces,
            output,
            precision: Precision::Fp32,
        })
    };
    let rounds = rl.rounds.get();
    let written = rounds + u64::from(rl.score_last);
    let mut stages = vec![features(
        format!("{name}.{REFERENCE}"),
        rl.reference.clone(),
        rl.reference_pieces.clone(),
        reference.clone(),
    )];
    for round in 1..=written {
        let optimises = round <= rounds;
        let word = if optimises { round.to_string() } else { FINAL.to_owned() };
        let part = |part: &str| format!("{name}.{word}.{part}");
        let folder = folder.join(&word);
        stages.push(Stage::Generate(Generate {
            name: Some(part("generate")),
            resources: rl.resources.clone(),
            init: (round == 1).then(|| rl.init.clone()).flatten(),
            samples: rl.samples,
            batch_size: rl.batch_size,
            sampling: rl.sampling,
            prompt: None,
            prompts: rl.prompts.clone(),
            // Rounds do not draw alike.
            seed: Some(recipe.seed.wrapping_add(round << 32)),
            output: Some(folder.clone()),
            max_seconds: rl.max_seconds,
            max_characters: None,
            max_patches: rl.max_patches,
            precision: rl.precision,
        }));
        let generated = folder.join("features");
        stages.push(features(part("features"), folder.join("interleaved"), None, generated.clone()));
        stages.push(Stage::Score(Score {
            name: Some(part("score")),
            resources: rl.resources.clone(),
            reference: reference.clone(),
            generated: generated.clone(),
            round: Some(round - 1),
            plot: Some(run_folder(&recipe.name).join(name).join("tensorboard")),
        }));
        if !optimises {
            break;
        }
        let preferences = folder.join("preferences.json");
        stages.push(Stage::Prefer(Prefer {
            name: Some(part("prefer")),
            resources: rl.resources.clone(),
            reference: reference.clone(),
            features: generated,
            interleaved: folder.join("interleaved"),
            original: folder.join("original"),
            select: rl.select,
            similarity_limit: rl.similarity_limit,
            output: preferences.clone(),
        }));
        stages.push(Stage::Dpo(dpo.clone().stage(
            (part("dpo"), rl.resources.clone()),
            ((round == 1).then(|| rl.init.clone()).flatten(), preferences),
            (rl.precision, format!("{}-RL{round}", rl.tag.as_ref().unwrap_or(&recipe.name))),
        )));
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_its_name() {
        assert_eq!(part_of("rl.1.dpo"), Some(("rl", "1", "dpo")));
        assert_eq!(part_of("a.b.final.score"), Some(("a.b", "final", "score")));
        assert_eq!(part_of("rl.reference"), Some(("rl", "", "reference")));
        assert_eq!(part_of("v1.2.finetune"), None);
        assert_eq!(part_of("generate"), None);
    }
}
