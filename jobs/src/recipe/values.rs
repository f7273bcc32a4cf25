//! Values of keys that several stages have.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl Size {
    pub fn architecture(self) -> model::Architecture {
        match self {
            Size::Small => model::Architecture::small(),
            Size::Medium => model::Architecture::medium(),
            Size::Large => model::Architecture::large(),
        }
    }
}
