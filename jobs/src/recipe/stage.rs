//! The recipe and its stages as they are written.
use std::{fmt, num::NonZeroU64, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    number::*,
    precision::Precision,
    resources::Resources,
    rl::{Dpo, Features, Prefer, Rl, Score},
    select::{By, Select},
    training::{M3, Training},
    values::{Device, Keys, Sampling, Size},
};

/// A recipe of notagen-train: what to train, on what, and what to write with it. Paths are relative to the
/// working directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Names the run: its folder is runs/NAME.
    pub name: String,
    /// Every random stream of the run comes from this number.
    #[serde(default)]
    pub seed: u64,
    /// Where to compute.
    #[serde(default)]
    pub device: Device,
    /// The number format of the arithmetic; weights and optimizer stay in fp32.
    #[serde(default)]
    pub precision: Precision,
    /// The size of the network: a released size, or a map of its dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// What each stage asks of a cluster, if it does not say otherwise (see `submit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What is done, in this order: a list of maps with one key each, the kind of the stage.
    pub stages: Vec<Stage>,
}

/// The size of the network: a released size, or a map of its dimensions.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Model {
    /// A released size.
    Size(Size),
    /// Dimensions; those left out are those of `base`.
    Dimensions(Dimensions),
}

/// The dimensions of the network; those left out are those of `base`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    /// The released size that the keys left out come from (small).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Size>,
    /// The longest context, in patches of 16 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_length: Option<NonZeroU64>,
    /// Layers of the patch-level decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_layers: Option<NonZeroU64>,
    /// Layers of the character-level decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub char_layers: Option<NonZeroU64>,
    /// Width of both decoders, a multiple of 64 (one attention head is 64 wide).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<NonZeroU64>,
    /// Dropout, everywhere GPT-2 has it (0.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<Portion>,
}

/// One stage of a recipe: a map with one key, the kind of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Scores in; interleaved ABC, the form NotaGen trains on, and indexes out.
    Preprocess(Preprocess),
    /// Training from scratch on a large corpus.
    Pretrain(Training),
    /// Training on a chosen part of the corpus, between pretraining and fine-tuning (NotaGen-X).
    PostTrain(Training),
    /// Training on the target corpus.
    Finetune(Training),
    /// Training of M3, the music encoder of CLaMP 2, by masked patches.
    M3(M3),
    /// Writes pieces of music.
    Generate(Generate),
    /// Rounds of CLaMP-DPO: generate, features, score, prefer, DPO.
    Rl(Rl),
    /// CLaMP 2 features of a folder of interleaved ABC.
    Features(Features),
    /// The average CLaMP 2 score of generated pieces.
    Score(Score),
    /// Chooses and rejects generated pieces: the preference data of DPO.
    Prefer(Prefer),
    /// Direct preference optimisation (DPO-positive) on preference data.
    Dpo(Dpo),
    /// Ranks a corpus and keeps the best of it: the training pieces of the next stage.
    Select(Select),
}

/// Scores in; interleaved ABC, the form NotaGen trains on, and indexes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the stage asks of a cluster, before the recipe's `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Folder of scores, MusicXML or standard ABC.
    pub scores: PathBuf,
    /// Folder for interleaved ABC, the form CLaMP 2 reads; may be left out with pack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<PathBuf>,
    /// One compressed file for interleaved ABC, instead of the folder or besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<PathBuf>,
    /// Folder for the rest-reduced form NotaGen trains on, a folder per key; the indexes lie beside it.
    pub augmented: PathBuf,
    /// The portion of the pieces kept for evaluation.
    #[serde(default = "eval_split")]
    pub eval_split: Portion,
    /// The keys that pieces are written in (with pack none; else those that the training stages after it ask for, all if
    /// none does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// The seed of the split (the recipe's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// A table (CSV) of period, composer and instrumentation by piece, written into the pieces as prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
}

/// Writes pieces of music.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the stage asks of a cluster, before the recipe's `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The weights: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Pieces to write.
    #[serde(default = "thousand")]
    pub samples: NonZeroU64,
    /// Pieces written at a time (as many as the memory holds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<NonZeroU64>,
    /// How characters are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// What to write: "Period_Composer_Instrumentation". Not together with prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Several prompts, taken in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// The seed of the drawing (the recipe's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Folder for original/, interleaved/ and summary.json (the stage's folder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Give a piece up after this many seconds (1200).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<Positive>,
    /// Give a piece up after this many characters (102400).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_characters: Option<NonZeroU64>,
    /// End a piece after this many patches (the model ends it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_patches: Option<NonZeroU64>,
    /// The recipe's precision, for this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

impl Stage {
    /// The kinds of stages, as a recipe writes them.
    pub const KINDS: [&str; 12] = [
        "preprocess",
        "pretrain",
        "post_train",
        "finetune",
        "m3",
        "generate",
        "rl",
        "features",
        "score",
        "prefer",
        "dpo",
        "select",
    ];

    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Preprocess(_) => "preprocess",
            Stage::Pretrain(_) => "pretrain",
            Stage::PostTrain(_) => "post_train",
            Stage::Finetune(_) => "finetune",
            Stage::M3(_) => "m3",
            Stage::Generate(_) => "generate",
            Stage::Rl(_) => "rl",
            Stage::Features(_) => "features",
            Stage::Score(_) => "score",
            Stage::Prefer(_) => "prefer",
            Stage::Dpo(_) => "dpo",
            Stage::Select(_) => "select",
        }
    }

    pub fn name(&mut self) -> &mut Option<String> {
        match self {
            Stage::Preprocess(stage) => &mut stage.name,
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => &mut stage.name,
            Stage::M3(stage) => &mut stage.name,
            Stage::Generate(stage) => &mut stage.name,
            Stage::Rl(stage) => &mut stage.name,
            Stage::Features(stage) => &mut stage.name,
            Stage::Score(stage) => &mut stage.name,
            Stage::Prefer(stage) => &mut stage.name,
            Stage::Dpo(stage) => &mut stage.name,
            Stage::Select(stage) => &mut stage.name,
        }
    }

    /// What the stage itself asks of a cluster.
    pub fn resources(&self) -> Option<&Resources> {
        match self {
            Stage::Preprocess(stage) => stage.resources.as_ref(),
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => stage.resources.as_ref(),
            Stage::M3(stage) => stage.resources.as_ref(),
            Stage::Generate(stage) => stage.resources.as_ref(),
            Stage::Rl(stage) => stage.resources.as_ref(),
            Stage::Features(stage) => stage.resources.as_ref(),
            Stage::Score(stage) => stage.resources.as_ref(),
            Stage::Prefer(stage) => stage.resources.as_ref(),
            Stage::Dpo(stage) => stage.resources.as_ref(),
            Stage::Select(stage) => stage.resources.as_ref(),
        }
    }

    /// The key that says which weights a stage starts from.
    pub fn init(&mut self) -> Option<&mut Option<String>> {
        match self {
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => Some(&mut stage.init),
            Stage::Generate(stage) => Some(&mut stage.init),
            Stage::Rl(stage) => Some(&mut stage.init),
            Stage::Dpo(stage) => Some(&mut stage.init),
            // What is ranked otherwise needs no network, unless one is asked for.
            Stage::Select(stage) if stage.by == By::LogProbability || stage.init.is_some() => Some(&mut stage.init),
            _ => None,
        }
    }

    /// The number format that a resolved stage computes in, if it computes with a network.
    pub fn precision(&mut self) -> Option<&mut Precision> {
        match self {
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => stage.precision.as_mut(),
            Stage::M3(stage) => stage.precision.as_mut(),
            Stage::Generate(stage) => stage.precision.as_mut(),
            Stage::Features(stage) => Some(&mut stage.precision),
            Stage::Dpo(stage) => stage.precision.as_mut(),
            Stage::Select(stage) => stage.precision.as_mut(),
            Stage::Preprocess(_) | Stage::Rl(_) | Stage::Score(_) | Stage::Prefer(_) => None,
        }
    }

    pub fn training(&self) -> Option<&Training> {
        match self {
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => Some(stage),
            _ => None,
        }
    }

    /// The weights of CLaMP 2 or M3 that a stage reads.
    pub fn judge(&self) -> Option<&str> {
        match self {
            Stage::Features(stage) => Some(&stage.weights),
            Stage::Rl(stage) => Some(&stage.clamp2),
            Stage::Select(stage) => stage.clamp2.as_deref(),
            _ => None,
        }
    }

    /// Whether the stage works piece by piece, so that its pieces can be shared out.
    pub fn works_by_pieces(&self) -> bool {
        matches!(self, Stage::Generate(_) | Stage::Features(_) | Stage::Select(_))
    }

    /// Whether the stage leaves weights of NotaGen behind.
    pub fn makes_weights(&self) -> bool {
        matches!(self, Stage::Pretrain(_) | Stage::PostTrain(_) | Stage::Finetune(_) | Stage::Rl(_) | Stage::Dpo(_))
    }
}

impl<'de> Deserialize<'de> for Model {
    /// Written out, since an untagged enum would forget where in the file the error is.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Model, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Model;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("small, medium, large or a map of dimensions")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Model, E> {
                Size::deserialize(de::value::StrDeserializer::new(text)).map(Model::Size)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Model, A::Error> {
                Dimensions::deserialize(de::value::MapAccessDeserializer::new(map)).map(Model::Dimensions)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
