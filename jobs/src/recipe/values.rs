//! Values of keys that several stages have.
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::*;

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

/// The keys that pieces are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Each piece's own: enough for key_augmentation none.
    Original,
    /// All fifteen.
    All,
    /// None: training moves the packed or interleaved pieces as it reads them.
    None,
}

impl From<Keys> for notation::preprocess::Keys {
    fn from(keys: Keys) -> notation::preprocess::Keys {
        match keys {
            Keys::Original => notation::preprocess::Keys::Original,
            Keys::All => notation::preprocess::Keys::All,
            Keys::None => notation::preprocess::Keys::None,
        }
    }
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

impl Size {
    pub fn architecture(self) -> model::Architecture {
        match self {
            Size::Small => model::Architecture::small(),
            Size::Medium => model::Architecture::medium(),
            Size::Large => model::Architecture::large(),
        }
    }
}
