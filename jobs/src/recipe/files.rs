//! What files a stage reads, writes and publishes.
use std::path::{Path, PathBuf};

use model::{Architecture, weights};

use super::paths::indexes;
use super::{Init, Stage};

impl Stage {
    /// The files, folders and weights that it reads, each with its key, in the order of the keys.
    ///
    /// # Errors
    /// The text after `hf://` is not `owner/repo/file`.
    pub fn inputs(&self) -> Result<Vec<(&'static str, Init)>, String> {
        let mut inputs: Vec<(&'static str, Init)> = Vec::new();
        let mut add = |key, path: Option<&PathBuf>| inputs.extend(path.map(|path| (key, Init::File(path.clone()))));
        let mut judge = None;
        match self {
            Stage::Preprocess(stage) => {
                add("scores", Some(&stage.scores));
                add("prompts", stage.prompts.as_ref());
            }
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => {
                add("train", Some(&stage.train));
                add("eval", stage.eval.as_ref());
                add("resume_from", stage.resume_from.as_ref());
            }
            Stage::M3(stage) => {
                add("train", Some(&stage.train));
                add("eval", stage.eval.as_ref());
            }
            Stage::Features(stage) => {
                add("input", Some(&stage.input));
                judge = Some("weights");
            }
            Stage::Score(stage) => {
                add("reference", Some(&stage.reference));
                add("generated", Some(&stage.generated));
            }
            Stage::Prefer(stage) => {
                add("reference", Some(&stage.reference));
                add("features", Some(&stage.features));
                add("interleaved", Some(&stage.interleaved));
                add("original", Some(&stage.original));
            }
            Stage::Dpo(stage) => add("preferences", Some(&stage.preferences)),
            Stage::Select(stage) => {
                add("corpus", Some(&stage.corpus));
                add("reference", stage.reference.as_ref());
                judge = Some("clamp2");
            }
            // Rounds are stages of their own by now.
            Stage::Generate(_) | Stage::Rl(_) => {}
        }
        if let (Some(key), Some(weights)) = (judge, self.judge()) {
            inputs.push((key, Init::parse(weights)?));
        }
        if let Some(Some(init)) = self.init() {
            inputs.push(("init", Init::parse(&init)?));
        }
        Ok(inputs)
    }

    /// Whether it writes this path.
    pub fn writes(&self, path: &Path) -> bool {
        match self {
            Stage::Preprocess(stage) => {
                stage.interleaved.as_deref() == Some(path)
                    || stage.pack.as_deref() == Some(path)
                    || path == stage.augmented
                    || indexes(&stage.augmented).iter().any(|index| path == index)
            }
            Stage::Features(stage) => path == stage.output,
            Stage::Prefer(stage) => path == stage.output,
            Stage::Select(stage) => path == stage.output,
            Stage::Generate(stage) => stage.output.as_ref().is_some_and(|output| path.starts_with(output)),
            _ => false,
        }
    }

    /// Where its weights are published, under the original's file name.
    pub fn published(&self, architecture: Option<&Architecture>) -> Option<PathBuf> {
        let file = match self {
            Stage::Dpo(stage) => {
                let (beta, lambda, rate) = (stage.beta.get(), stage.lambda.get(), stage.learning_rate.get());
                weights::dpo_file_name(stage.tag.as_ref()?, architecture?, beta, lambda, rate)
            }
            Stage::M3(stage) => {
                let batch = stage.batch_size().get() as i64;
                let (architecture, rate) = (stage.architecture(), stage.learning_rate());
                let name = weights::m3_file_name(&architecture, rate, batch, stage.mask_ratio.get());
                match stage.tag.as_deref() {
                    Some("") | None => name,
                    Some(tag) => name.replacen("weights_m3_", &format!("weights_m3_{tag}_"), 1),
                }
            }
            stage => {
                let training = stage.training()?;
                let (rate, batch) = (training.learning_rate(), training.batch_size().get() as i64);
                weights::file_name(training.tag.as_ref()?, architecture?, rate, batch)
            }
        };
        Some(Path::new("checkpoints").join(file))
    }
}
