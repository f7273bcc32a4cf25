//! `rl` in its parts: every round generates, takes features, scores, prefers and optimises, each a stage of its own.
use std::path::PathBuf;

use crate::recipe::{
    Dpo, Features, Generate, Precision, Prefer, Recipe, Rl, Score, Stage, overrides, paths::run_folder,
};

/// The recipe with each `rl` stage replaced by its parts, NAME.ROUND.PART, which write to `runs/RUN/NAME/`; what
/// names the stage's weights names those of its last round.
pub fn expand(mut recipe: Recipe) -> Recipe {
    let names = overrides::names(&recipe);
    let mut last: Vec<(String, String)> = Vec::new();
    let stages = std::mem::take(&mut recipe.stages);
    for (mut stage, name) in stages.into_iter().zip(names) {
        *stage.name() = Some(name.clone());
        if let Some(Some(init)) = stage.init()
            && let Some((_, weights)) = last.iter().find(|(rl, _)| *init == format!("stage:{rl}"))
        {
            *init = format!("stage:{weights}");
        }
        match stage {
            Stage::Rl(rl) => {
                last.push((name.clone(), format!("{name}.{}.dpo", rl.rounds)));
                recipe.stages.extend(parts(&rl, &name, &recipe));
            }
            other => recipe.stages.push(other),
        }
    }
    recipe
}

/// The words of a part's name: the stage, the round and the part. The reference's features belong to no round.
pub fn words(name: &str) -> Option<(&str, &str, &str)> {
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

fn parts(rl: &Rl, name: &str, recipe: &Recipe) -> Vec<Stage> {
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
            sampling: rl.sampling.clone(),
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
        let settings = &rl.dpo;
        stages.push(Stage::Dpo(Dpo {
            name: Some(part("dpo")),
            resources: rl.resources.clone(),
            init: (round == 1).then(|| rl.init.clone()).flatten(),
            preferences,
            precision: rl.precision,
            tag: Some(format!("{}-RL{round}", rl.tag.as_ref().unwrap_or(&recipe.name))),
            beta: settings.beta,
            lambda: settings.lambda,
            learning_rate: settings.learning_rate,
            steps: settings.steps,
            batch_size: settings.batch_size,
            accumulation_steps: settings.accumulation_steps,
            max_grad_norm: settings.max_grad_norm,
            weight_decay: settings.weight_decay,
            dropout: settings.dropout,
            activation_checkpointing: settings.activation_checkpointing,
            gradient_precision: settings.gradient_precision,
            shard_optimizer: settings.shard_optimizer,
            optimizer_offload: settings.optimizer_offload,
            checkpoint_every: settings.checkpoint_every,
            keep_checkpoints: settings.keep_checkpoints,
            log_every: settings.log_every,
        }));
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_its_name() {
        assert_eq!(words("rl.1.dpo"), Some(("rl", "1", "dpo")));
        assert_eq!(words("a.b.final.score"), Some(("a.b", "final", "score")));
        assert_eq!(words("rl.reference"), Some(("rl", "", "reference")));
        assert_eq!(words("v1.2.finetune"), None);
        assert_eq!(words("generate"), None);
    }
}
