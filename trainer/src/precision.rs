//! Number formats: what is asked for, and what is settled.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use tch::Kind;

/// A number format that is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// bfloat16.
    Bf16,
    /// Half precision.
    Fp16,
}

impl Dtype {
    /// The type of tensors, and of autocast, where `Float` is none.
    pub fn kind(self) -> Kind {
        match self {
            Dtype::Fp32 => Kind::Float,
            Dtype::Bf16 => Kind::BFloat16,
            Dtype::Fp16 => Kind::Half,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Dtype::Fp32 => "fp32",
            Dtype::Bf16 => "bf16",
            Dtype::Fp16 => "fp16",
        })
    }
}

/// The number format of the arithmetic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What the machine multiplies at full speed: bf16, fp16 on cards before compute capability 8.0, fp32 on processors
    /// without bf16.
    #[default]
    Auto,
    /// 32-bit floats throughout.
    Fp32,
    /// Autocast to bfloat16.
    Bf16,
    /// Autocast to half precision with dynamic loss scaling, as the original trains.
    Fp16,
}

impl Precision {
    /// The format; where nobody has settled what `auto` is, the one that every machine computes in.
    pub fn dtype(self) -> Dtype {
        match self {
            Precision::Auto | Precision::Fp32 => Dtype::Fp32,
            Precision::Bf16 => Dtype::Bf16,
            Precision::Fp16 => Dtype::Fp16,
        }
    }
}

impl From<Dtype> for Precision {
    fn from(format: Dtype) -> Precision {
        match format {
            Dtype::Fp32 => Precision::Fp32,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::Fp16 => Precision::Fp16,
        }
    }
}
