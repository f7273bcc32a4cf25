//! The recipe and its stages as they are written.
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use model::number::{Count, Portion, Positive};
use model::sampling::Sampling;
use notation::preprocess::Keys;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use trainer::Precision;

use super::declare::{declare, stage};
use super::resources::Resources;
use super::rl::{Dpo, Features, Prefer, Rl, Score};
use super::select::{By, Select};
use super::training::{M3, Training};
use super::values::{Device, Size};

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

/// Declares the kinds of stages: the word in a recipe, and the keys.
macro_rules! stages {
    ($($(#[$of_kind:meta])* $word:literal $kind:ident($keys:ty),)+) => {
        /// One stage of a recipe: a map with one key, the kind of the stage.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Stage {
            $($(#[$of_kind])* $kind($keys),)+
        }

        impl Stage {
            /// The kinds of stages, as a recipe writes them.
            pub const KINDS: &[&str] = &[$($word),+];

            pub fn kind(&self) -> &'static str {
                match self { $(Stage::$kind(_) => $word,)+ }
            }

            pub fn name(&self) -> Option<&String> {
                match self { $(Stage::$kind(stage) => stage.name.as_ref(),)+ }
            }

            pub fn set_name(&mut self, name: &str) {
                match self { $(Stage::$kind(stage) => stage.name = Some(name.to_owned()),)+ }
            }

            /// What the stage itself asks of a cluster.
            pub fn resources(&self) -> Option<&Resources> {
                match self { $(Stage::$kind(stage) => stage.resources.as_ref(),)+ }
            }
        }
    };
}

stages! {
    /// Scores in; interleaved ABC, the form NotaGen trains on, and indexes out.
    "preprocess" Preprocess(Preprocess),
    /// Training from scratch on a large corpus.
    "pretrain" Pretrain(Training),
    /// Training on a chosen part of the corpus, between pretraining and fine-tuning (NotaGen-X).
    "post_train" PostTrain(Training),
    /// Training on the target corpus.
    "finetune" Finetune(Training),
    /// Training of M3, the music encoder of CLaMP 2, by masked patches.
    "m3" M3(M3),
    /// Writes pieces of music.
    "generate" Generate(Generate),
    /// Rounds of CLaMP-DPO: generate, features, score, prefer, DPO.
    "rl" Rl(Rl),
    /// CLaMP 2 features of a folder of interleaved ABC.
    "features" Features(Features),
    /// The average CLaMP 2 score of generated pieces.
    "score" Score(Score),
    /// Chooses and rejects generated pieces: the preference data of DPO.
    "prefer" Prefer(Prefer),
    /// Direct preference optimisation (DPO-positive) on preference data.
    "dpo" Dpo(Dpo),
    /// Ranks a corpus and keeps the best of it: the training pieces of the next stage.
    "select" Select(Select),
}

stage! {
    /// Scores in; interleaved ABC, the form NotaGen trains on, and indexes out.
    Preprocess {
        /// Folder of scores, MusicXML or standard ABC.
        scores: PathBuf,
        /// Folder for interleaved ABC, the form CLaMP 2 reads; may be left out with pack.
        interleaved: Option<PathBuf>,
        /// One compressed file for interleaved ABC, instead of the folder or besides.
        pack: Option<PathBuf>,
        /// Folder for the rest-reduced form NotaGen trains on, a folder per key; the indexes lie beside it.
        augmented: PathBuf,
        /// The portion of the pieces kept for evaluation.
        #[serde(default = "Portion::ratio::<1, 10>")]
        eval_split: Portion,
        /// The keys that pieces are written in (with pack none; else those that the training stages after it ask for, all if
        /// none does).
        keys: Option<Keys>,
        /// The seed of the split (the recipe's).
        seed: Option<u64>,
        /// A table (CSV) of period, composer and instrumentation by piece, written into the pieces as prompts.
        prompts: Option<PathBuf>,
    }
}

stage! {
    /// Writes pieces of music.
    Generate {
        /// The weights: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
        #[schemars(extend("effect" = "content"))]
        init: Option<String>,
        /// Pieces to write.
        #[serde(default = "Count::of::<1000>")]
        samples: Count,
        /// Pieces written at a time (as many as the memory holds).
        #[schemars(extend("effect" = "none"))]
        batch_size: Option<Count>,
        /// How characters are drawn.
        #[serde(default)]
        sampling: Sampling,
        /// What to write: "Period_Composer_Instrumentation". Not together with prompts.
        prompt: Option<String>,
        /// Several prompts, taken in turn.
        prompts: Option<Vec<String>>,
        /// The seed of the drawing (the recipe's).
        seed: Option<u64>,
        /// Folder for original/, interleaved/ and summary.json (the stage's folder).
        output: Option<PathBuf>,
        /// Give a piece up after this many seconds (1200).
        max_seconds: Option<Positive>,
        /// Give a piece up after this many characters (102400).
        max_characters: Option<Count>,
        /// End a piece after this many patches (the model ends it).
        max_patches: Option<Count>,
        /// The recipe's precision, for this stage.
        precision: Option<Precision>,
    }
}

impl Stage {
    /// The key that says which weights a stage starts from.
    pub fn init_key(&mut self) -> Option<&mut Option<String>> {
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

    /// The same, to read: nothing where a stage starts from no weights.
    pub fn init(&self) -> Option<Option<String>> {
        self.clone().init_key().cloned()
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

    /// Whether the stage trains a network.
    pub fn trains(&self) -> bool {
        matches!(self, Stage::M3(_) | Stage::Dpo(_)) || self.training().is_some()
    }

    /// Whether the processes of a team run the stage together; the others are rank 0's alone.
    pub fn is_for_all(&self) -> bool {
        self.works_by_pieces() || self.trains()
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
