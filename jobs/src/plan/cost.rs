//! What a stage costs, counted from the sizes of the network: parameters, arithmetic, memory, steps.
use std::path::Path;

use model::Architecture;
use serde::Serialize;

use trainer::memory::{StepShape, TrainMemory};
use trainer::params::Param;

use crate::recipe::{Dpo, Training};

/// The cost of training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    pub parameters: u64,
    /// Floating-point operations to train on one patch of a full context, forward and backward.
    pub flops_per_patch: f64,
    /// Weights, gradients and AdamW's two moments, in fp32, of what computes.
    pub state_bytes: u64,
    /// The most that one part of a step takes beside them, with full contexts and full patches.
    pub activation_bytes: u64,
    /// AdamW's moments where they are in the host's memory.
    pub host_bytes: u64,
    /// Pieces in the index after the globs, when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pieces: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_per_epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

impl Cost {
    /// The cost of a resolved training stage, on a GPU or on a CPU.
    pub fn of(training: &Training, architecture: &Architecture, cpu: bool) -> Cost {
        let batch = training.batch_size().get() as u64;
        let pieces = pieces(&training.train, training.pieces.as_deref());
        let steps_per_epoch = pieces.map(|pieces| pieces.div_ceil(batch));
        let steps = match (training.steps, training.epochs, steps_per_epoch) {
            (Some(steps), _, _) => Some(u64::from(steps)),
            (None, Some(epochs), Some(per_epoch)) => Some(u64::from(epochs) * per_epoch),
            _ => None,
        };
        let memory = TrainMemory::of(
            architecture,
            &StepShape {
                pieces: batch.div_ceil(training.accumulation_steps.get() as u64),
                predicted: Some(training.patch_sampling).filter(|&drawn| drawn > 0),
                precision: training.precision.value(),
                checkpointing: training.activation_checkpointing,
                dropout: architecture.dropout > 0.0,
                offload: training.optimizer_offload,
                cpu,
            },
        );
        Cost { pieces, steps_per_epoch, steps, ..Cost::of_memory(architecture, &memory) }
    }

    /// The cost of a resolved DPO stage: both pieces of a pair go through the network together.
    pub fn of_dpo(dpo: &Dpo, architecture: &Architecture, cpu: bool) -> Cost {
        let memory = TrainMemory::of(
            architecture,
            &StepShape {
                pieces: 2 * dpo.batch_size.get().div_ceil(dpo.accumulation_steps.get()) as u64,
                predicted: None,
                precision: dpo.precision.value(),
                checkpointing: dpo.activation_checkpointing,
                dropout: dpo.dropout && architecture.dropout > 0.0,
                offload: dpo.optimizer_offload,
                cpu,
            },
        );
        Cost { steps: Some(dpo.steps.get()), ..Cost::of_memory(architecture, &memory) }
    }

    fn of_memory(architecture: &Architecture, memory: &TrainMemory) -> Cost {
        Cost {
            parameters: u64::try_from(architecture.parameter_count()).unwrap_or(0),
            flops_per_patch: flops_per_patch(architecture),
            state_bytes: memory.weights + memory.gradients + memory.moments - memory.host,
            activation_bytes: memory.casts + memory.activations + memory.passing,
            host_bytes: memory.host,
            pieces: None,
            steps_per_epoch: None,
            steps: None,
        }
    }
}

/// The forward pass, and the backward pass at twice that, with a full context.
fn flops_per_patch(a: &Architecture) -> f64 {
    3.0 * (a.patch_operations(a.patch_length as f64) + characters(a))
}

/// The part of the arithmetic that the character decoder does.
pub fn share_of_characters(a: &Architecture) -> f64 {
    3.0 * characters(a) / flops_per_patch(a)
}

/// The forward pass of the character decoder for a full patch and its end. Most patches have fewer characters.
fn characters(a: &Architecture) -> f64 {
    let full = a.patch_size as f64 + 1.0;
    full * a.character_operations(full)
}

/// The pieces of an index whose name matches a glob; nothing if there is no such index.
fn pieces(index: &Path, glob: Option<&str>) -> Option<u64> {
    trainer::read_index(index, glob).ok().map(|entries| entries.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Stage;

    #[test]
    fn training_costs_about_six_operations_a_weight_and_position() {
        let a = Architecture::small();
        let h = a.hidden_size as f64;
        let weights = 12.0 * h * h * (a.patch_layers as f64 + 17.0 * a.char_layers as f64);
        let ratio = flops_per_patch(&a) / (6.0 * weights);
        assert!((1.0..1.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_large_network_learns_on_cards_of_24_and_16_gb() {
        // What a card of so many decimal GB leaves beside CUDA's own gigabyte.
        let (card_24, card_16) = (24e9 as u64 - (1 << 30), 16e9 as u64 - (1 << 30));
        let bytes = |kind: &str, offload: bool| {
            let settings = serde_json::json!({
                "train": "none", "init": "none", "preferences": "none", "batch_size": 1, "steps": 1,
                "precision": "fp16", "activation_checkpointing": true, "optimizer_offload": offload,
            });
            let mut settings = settings.as_object().cloned().unwrap();
            settings.retain(|key, _| kind != "dpo" || key != "train");
            settings.retain(|key, _| kind == "dpo" || key != "preferences");
            let stage: Stage = serde_json::from_value(serde_json::json!({ kind: settings })).unwrap();
            let cost = match &stage {
                Stage::Dpo(dpo) => Cost::of_dpo(dpo, &Architecture::large(), false),
                stage => Cost::of(stage.training().unwrap(), &Architecture::large(), false),
            };
            assert_eq!(cost.host_bytes > 0, offload);
            cost.state_bytes + cost.activation_bytes
        };
        for kind in ["finetune", "dpo"] {
            assert!(bytes(kind, false) < card_24, "{kind}: {}", bytes(kind, false));
            assert!(bytes(kind, true) < card_16, "{kind}: {}", bytes(kind, true));
            assert!(bytes(kind, true) + 4_000_000_000 < bytes(kind, false));
        }
    }
}
