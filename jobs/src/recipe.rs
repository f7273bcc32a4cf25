//! The recipe as it is written: every key, its type, its default. The JSON schema for editors comes from here.
use std::{fmt, num::NonZeroU64, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

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
    /// What is done, in this order: a list of maps with one key each, the kind of the stage.
    pub stages: Vec<Stage>,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first CUDA device.
    Cuda,
}

/// The number format of the arithmetic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    #[default]
    Fp32,
    /// Autocast to bfloat16.
    Bf16,
    /// Autocast to half precision with dynamic loss scaling, as the original trains.
    Fp16,
}

/// One of the sizes that the original releases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// NotaGen-small, 110M parameters.
    #[default]
    Small,
    /// NotaGen-medium, 244M parameters.
    Medium,
    /// NotaGen-large, 516M parameters.
    Large,
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
    /// Standard ABC in; interleaved ABC, the form NotaGen trains on, and indexes out.
    Preprocess(Preprocess),
    /// Training from scratch on a large corpus.
    Pretrain(Training),
    /// Training on a chosen part of the corpus, between pretraining and fine-tuning (NotaGen-X).
    PostTrain(Training),
    /// Training on the target corpus.
    Finetune(Training),
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
}

/// Standard ABC in; interleaved ABC, the form NotaGen trains on, and indexes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Folder of standard ABC files.
    pub scores: PathBuf,
    /// Folder for interleaved ABC, the form CLaMP 2 reads.
    pub interleaved: PathBuf,
    /// Folder for the rest-reduced form NotaGen trains on, a folder per key; the indexes lie beside it.
    pub augmented: PathBuf,
    /// The portion of the pieces kept for evaluation.
    #[serde(default = "eval_split")]
    pub eval_split: Portion,
    /// The keys that pieces are written in (those that the training stages after it ask for; all if none does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// The seed of the split (the recipe's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// A table (CSV) of period, composer and instrumentation by piece, written into the pieces as prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
}

/// The keys that pieces are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Each piece's own: enough for key_augmentation none.
    Original,
    /// All fifteen.
    All,
}

impl From<Keys> for notation::preprocess::Keys {
    fn from(keys: Keys) -> notation::preprocess::Keys {
        match keys {
            Keys::Original => notation::preprocess::Keys::Original,
            Keys::All => notation::preprocess::Keys::All,
        }
    }
}

/// A training stage: pretrain, post_train and finetune differ in their defaults alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// A .pth file to go on from with its optimizer state and epoch, the original's or our own. Not together with init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<PathBuf>,
    /// The index of the training pieces: {"path": …, "key": …} a line.
    pub train: PathBuf,
    /// The index of the evaluation pieces; without one the last weights are the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// Only pieces whose name matches this glob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pieces: Option<String>,
    /// Only evaluation pieces whose name matches this glob (that of `pieces`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_pieces: Option<String>,
    /// The keys a piece is heard in (pretrain and post_train: all; finetune: nearby).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_augmentation: Option<KeyAugmentation>,
    /// The learning rate after warm-up (pretrain 1e-4, post_train and finetune 1e-5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<Positive>,
    /// Pieces per rank and step (pretrain 4, post_train and finetune 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<NonZeroU64>,
    /// Parts that the pieces of a step are run in, one after the other; divides batch_size.
    #[serde(default = "one")]
    pub accumulation_steps: NonZeroU64,
    /// Passes over the training pieces (pretrain and post_train 128, finetune 64). Not together with steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<NonZeroU64>,
    /// Optimizer steps in all. Not together with epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<NonZeroU64>,
    /// Stop after this many evaluations without a better loss (never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<NonZeroU64>,
    /// The course of the learning rate after warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0.
    #[serde(default)]
    pub warmup_steps: u64,
    /// The last steps, in which a wsd schedule falls. Not together with decay_fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<NonZeroU64>,
    /// The same as a portion of all steps (0.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_fraction: Option<Portion>,
    /// The learning rate that cosine and wsd fall to.
    #[serde(default)]
    pub min_learning_rate: NonNegative,
    /// AdamW's decoupled weight decay.
    #[serde(default = "weight_decay")]
    pub weight_decay: NonNegative,
    /// Clip the norm of the gradient to this (no clipping).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<Positive>,
    /// Steps between evaluations (one epoch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<NonZeroU64>,
    /// Train on this many patches of a piece at a time, drawn at random; 0 is whole pieces.
    #[serde(default)]
    pub patch_sampling: u64,
    /// The recipe's precision, for this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Recompute activations in the backward pass: less memory, a third more time.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: NonZeroU64,
    /// Checkpoints kept.
    #[serde(default = "two")]
    pub keep_checkpoints: NonZeroU64,
    /// Steps between lines of metrics.jsonl.
    #[serde(default = "ten")]
    pub log_every: NonZeroU64,
    /// Threads that read and encode pieces ahead of the training.
    #[serde(default = "two")]
    pub workers: NonZeroU64,
    /// The tag in the published file's name, the original's EXP_TAG (RECIPE-STAGE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// The keys a piece is heard in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyAugmentation {
    /// All fifteen key signatures alike.
    All,
    /// Up to three semitones from the piece's own key, the nearer the likelier.
    Nearby,
    /// The piece's own key alone.
    None,
}

/// The course of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine down to min_learning_rate.
    Cosine,
    /// It stays, then falls in a line to min_learning_rate over the last steps.
    Wsd,
}

/// How characters are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Draw from the k likeliest characters; 0 is all.
    #[serde(default = "top_k")]
    pub top_k: u64,
    /// Draw from the likeliest characters that together reach this probability.
    #[serde(default = "top_p")]
    pub top_p: Portion,
    /// Above 1 evens the probabilities out, below 1 sharpens them.
    #[serde(default = "temperature")]
    pub temperature: Positive,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { top_k: top_k(), top_p: top_p(), temperature: temperature() }
    }
}

/// Writes pieces of music.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
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
}

/// Rounds of CLaMP-DPO: generate, features, score, prefer, DPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rl {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Rounds.
    #[serde(default = "three")]
    pub rounds: NonZeroU64,
    /// The weights of CLaMP 2.
    pub clamp2: String,
    /// Folder of interleaved ABC that generated pieces are scored against.
    pub reference: PathBuf,
    /// Pieces to write each round.
    #[serde(default = "thousand")]
    pub samples: NonZeroU64,
    /// Pieces written at a time (as many as the memory holds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<NonZeroU64>,
    /// How characters are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Prompts, taken in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// The portion chosen, and the portion rejected.
    #[serde(default = "tenth")]
    pub select: Portion,
    /// A piece more like a reference piece than this is not chosen.
    #[serde(default = "similarity_limit")]
    pub similarity_limit: Portion,
    /// The optimisation of each round.
    #[serde(default)]
    pub dpo: DpoSettings,
    /// The recipe's precision, for this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The tag in the published files' names (RECIPE-STAGE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// DPO-positive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DpoSettings {
    /// Weight of the log-ratio.
    #[serde(default = "beta")]
    pub beta: Positive,
    /// Weight of the penalty on chosen pieces that become less likely.
    #[serde(default = "lambda")]
    pub lambda: NonNegative,
    /// The learning rate.
    #[serde(default = "dpo_learning_rate")]
    pub learning_rate: Positive,
    /// Optimizer steps.
    #[serde(default = "ten_thousand")]
    pub steps: NonZeroU64,
    /// Clip the norm of the gradient to this; null is no clipping.
    #[serde(default = "dpo_max_grad_norm")]
    pub max_grad_norm: Option<Positive>,
}

impl Default for DpoSettings {
    fn default() -> DpoSettings {
        DpoSettings {
            beta: beta(),
            lambda: lambda(),
            learning_rate: dpo_learning_rate(),
            steps: ten_thousand(),
            max_grad_norm: dpo_max_grad_norm(),
        }
    }
}

/// CLaMP 2 features of a folder of interleaved ABC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The weights of CLaMP 2.
    pub weights: String,
    /// Folder of interleaved ABC.
    pub input: PathBuf,
    /// Folder for the features, a .npy a piece.
    pub output: PathBuf,
}

/// The average CLaMP 2 score of generated pieces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Folder of features of the reference pieces.
    pub reference: PathBuf,
    /// Folder of features of the generated pieces.
    pub generated: PathBuf,
}

/// Chooses and rejects generated pieces: the preference data of DPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefer {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Folder of features of the reference pieces.
    pub reference: PathBuf,
    /// Folder of features of the generated pieces.
    pub features: PathBuf,
    /// Folder of the generated pieces, interleaved.
    pub interleaved: PathBuf,
    /// Folder of the generated pieces as the model wrote them.
    pub original: PathBuf,
    /// The portion chosen, and the portion rejected.
    #[serde(default = "tenth")]
    pub select: Portion,
    /// A piece more like a reference piece than this is not chosen.
    #[serde(default = "similarity_limit")]
    pub similarity_limit: Portion,
    /// The file to write: {"chosen": […], "rejected": […]}.
    pub output: PathBuf,
}

/// Direct preference optimisation (DPO-positive) on preference data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dpo {
    /// The name of the stage (its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The weights to start from: a path, hf://owner/repo/file or stage:NAME (the previous training stage's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// The preference data: {"chosen": […], "rejected": […]}.
    pub preferences: PathBuf,
    /// Weight of the log-ratio.
    #[serde(default = "beta")]
    pub beta: Positive,
    /// Weight of the penalty on chosen pieces that become less likely.
    #[serde(default = "lambda")]
    pub lambda: NonNegative,
    /// The learning rate.
    #[serde(default = "dpo_learning_rate")]
    pub learning_rate: Positive,
    /// Optimizer steps.
    #[serde(default = "ten_thousand")]
    pub steps: NonZeroU64,
    /// Clip the norm of the gradient to this; null is no clipping.
    #[serde(default = "dpo_max_grad_norm")]
    pub max_grad_norm: Option<Positive>,
    /// The recipe's precision, for this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The tag in the published file's name (RECIPE-STAGE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Stage {
    /// The kinds of stages, as a recipe writes them.
    pub const KINDS: [&str; 10] =
        ["preprocess", "pretrain", "post_train", "finetune", "generate", "rl", "features", "score", "prefer", "dpo"];

    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Preprocess(_) => "preprocess",
            Stage::Pretrain(_) => "pretrain",
            Stage::PostTrain(_) => "post_train",
            Stage::Finetune(_) => "finetune",
            Stage::Generate(_) => "generate",
            Stage::Rl(_) => "rl",
            Stage::Features(_) => "features",
            Stage::Score(_) => "score",
            Stage::Prefer(_) => "prefer",
            Stage::Dpo(_) => "dpo",
        }
    }

    pub fn name(&mut self) -> &mut Option<String> {
        match self {
            Stage::Preprocess(stage) => &mut stage.name,
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => &mut stage.name,
            Stage::Generate(stage) => &mut stage.name,
            Stage::Rl(stage) => &mut stage.name,
            Stage::Features(stage) => &mut stage.name,
            Stage::Score(stage) => &mut stage.name,
            Stage::Prefer(stage) => &mut stage.name,
            Stage::Dpo(stage) => &mut stage.name,
        }
    }

    /// The key that says which weights a stage starts from.
    pub fn init(&mut self) -> Option<&mut Option<String>> {
        match self {
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => Some(&mut stage.init),
            Stage::Generate(stage) => Some(&mut stage.init),
            Stage::Rl(stage) => Some(&mut stage.init),
            Stage::Dpo(stage) => Some(&mut stage.init),
            _ => None,
        }
    }

    pub fn training(&self) -> Option<&Training> {
        match self {
            Stage::Pretrain(stage) | Stage::PostTrain(stage) | Stage::Finetune(stage) => Some(stage),
            _ => None,
        }
    }

    /// Whether the stage leaves weights behind.
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

/// Declares a number with a range: reading one outside it is an error that says where.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $holds:expr, $what:literal, $($key:literal = $bound:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = String;

            fn try_from(number: f64) -> Result<$name, String> {
                let holds: fn(f64) -> bool = $holds;
                if number.is_finite() && holds(number) {
                    Ok($name(number))
                } else {
                    Err(format!("{number} is not {}", $what))
                }
            }
        }

        impl From<$name> for f64 {
            fn from(number: $name) -> f64 {
                number.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "number", $($key: $bound),+ })
            }
        }
    };
}

ranged!(
    /// A number above 0.
    Positive, |number| number > 0.0, "above 0", "exclusiveMinimum" = 0
);
ranged!(
    /// A number of at least 0.
    #[derive(Default)]
    NonNegative, |number| number >= 0.0, "at least 0", "minimum" = 0
);
ranged!(
    /// A number from 0 to 1.
    Portion, |number| (0.0..=1.0).contains(&number), "between 0 and 1", "minimum" = 0, "maximum" = 1
);

/// Declares functions that give the defaults of keys.
macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)+) => { $(fn $name() -> $type { $value })+ };
}

defaults! {
    eval_split: Portion = Portion(0.1);
    tenth: Portion = Portion(0.1);
    weight_decay: NonNegative = NonNegative(0.01);
    top_k: u64 = 9;
    top_p: Portion = Portion(0.9);
    temperature: Positive = Positive(1.2);
    similarity_limit: Portion = Portion(0.95);
    beta: Positive = Positive(0.1);
    lambda: NonNegative = NonNegative(10.0);
    dpo_learning_rate: Positive = Positive(1e-6);
    dpo_max_grad_norm: Option<Positive> = Some(Positive(1.0));
    one: NonZeroU64 = count(1);
    two: NonZeroU64 = count(2);
    three: NonZeroU64 = count(3);
    ten: NonZeroU64 = count(10);
    checkpoint_every: NonZeroU64 = count(500);
    thousand: NonZeroU64 = count(1000);
    ten_thousand: NonZeroU64 = count(10_000);
}

/// A count of at least one.
pub const fn count(number: u64) -> NonZeroU64 {
    match NonZeroU64::new(number) {
        Some(count) => count,
        None => NonZeroU64::MIN,
    }
}

impl Size {
    pub fn architecture(self) -> model::Architecture {
        match self {
            Size::Small => model::Architecture::small(),
            Size::Medium => model::Architecture::medium(),
            Size::Large => model::Architecture::large(),
        }
    }
}
