//! Fills in what a recipe leaves out. Looks at no file but the recipe.
use model::Architecture;
use model::number::{Count, Portion, Positive, count};
use notation::preprocess::Keys;
use trainer::KeyAugmentation;

use crate::recipe::paths::indexes;
use crate::recipe::{Dimensions, Model, Recipe, Size, Stage};

/// Fills in every default of a recipe whose stages have names and whose `rl` stages are expanded.
pub fn fill_in(recipe: &mut Recipe) {
    let (run, seed, precision) = (recipe.name.clone(), recipe.seed, recipe.precision);
    let mut earlier: Option<String> = None;
    for stage in &mut recipe.stages {
        let name = stage.name().cloned().unwrap_or_default();
        let resumes = stage.training().is_some_and(|training| training.resume_from.is_some());
        if let (Some(init), Some(earlier), false) = (stage.init_key(), &earlier, resumes) {
            init.get_or_insert_with(|| format!("stage:{earlier}"));
        }
        let tag = || format!("{run}-{name}");
        // The original's pretrain/config.py and finetune/config.py, and CLaMP 2's code/config.py.
        match stage {
            Stage::Preprocess(stage) => {
                stage.seed.get_or_insert(seed);
            }
            Stage::Pretrain(stage) => {
                stage.key_augmentation.get_or_insert(KeyAugmentation::All);
                stage.fill_in(Positive::ratio::<1, 10_000>(), Count::of::<4>(), count::<128>());
            }
            Stage::PostTrain(stage) => {
                stage.key_augmentation.get_or_insert(KeyAugmentation::All);
                stage.fill_in(Positive::ratio::<1, 100_000>(), Count::of::<1>(), count::<128>());
            }
            Stage::Finetune(stage) => {
                stage.key_augmentation.get_or_insert(KeyAugmentation::Nearby);
                stage.fill_in(Positive::ratio::<1, 100_000>(), Count::of::<1>(), count::<64>());
            }
            Stage::M3(stage) => {
                stage.precision.get_or_insert(precision);
                stage.tag.get_or_insert_with(tag);
                stage.fill_in(Positive::ratio::<1, 10_000>(), Count::of::<16>(), count::<100>());
            }
            Stage::Generate(stage) => {
                stage.precision.get_or_insert(precision);
                stage.seed.get_or_insert(seed);
            }
            Stage::Dpo(stage) => {
                stage.precision.get_or_insert(precision);
                stage.tag.get_or_insert_with(tag);
            }
            Stage::Select(stage) => {
                stage.precision.get_or_insert(precision);
            }
            Stage::Rl(_) | Stage::Features(_) | Stage::Score(_) | Stage::Prefer(_) => {}
        }
        if let Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) = stage {
            stage.precision.get_or_insert(precision);
            stage.tag.get_or_insert_with(tag);
            if stage.eval_pieces.is_none() {
                stage.eval_pieces.clone_from(&stage.pieces);
            }
        }
        if stage.makes_weights() {
            earlier = Some(name);
        }
    }
    fill_keys(recipe);
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

/// The network that the key `model` describes.
///
/// # Errors
/// Its dimensions do not go together.
pub fn architecture(model: &Model) -> Result<Architecture, String> {
    let Dimensions { base, patch_length, patch_layers, char_layers, hidden_size, dropout } = match model {
        Model::Size(size) => return Ok(size.architecture()),
        Model::Dimensions(dimensions) => dimensions.clone(),
    };
    let base = base.unwrap_or(Size::Small).architecture();
    let or = |given: Option<std::num::NonZeroU64>, base: i64| match given {
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
