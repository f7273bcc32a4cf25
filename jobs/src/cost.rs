//! What a stage costs, counted from the sizes of the network: parameters, arithmetic, memory, steps.
use std::path::Path;

use model::Architecture;
use serde::Serialize;

use crate::recipe::{Precision, Training};

/// The cost of training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    pub parameters: u64,
    /// Floating-point operations to train on one patch of a full context, forward and backward.
    pub flops_per_patch: f64,
    /// Weights, gradients and AdamW's two moments, in fp32.
    pub state_bytes: u64,
    /// About what the activations of one part of a step of full contexts take beside them.
    pub activation_bytes: u64,
    /// Pieces in the index after the globs, when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pieces: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_per_epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

impl Cost {
    /// The cost of a resolved training stage.
    pub fn of(training: &Training, architecture: &Architecture) -> Cost {
        let parameters = u64::try_from(architecture.parameter_count()).unwrap_or(0);
        let batch = training.batch_size.map_or(1, u64::from);
        let pieces = pieces(&training.train, training.pieces.as_deref());
        let steps_per_epoch = pieces.map(|pieces| pieces.div_ceil(batch));
        let steps = match (training.steps, training.epochs, steps_per_epoch) {
            (Some(steps), _, _) => Some(u64::from(steps)),
            (None, Some(epochs), Some(per_epoch)) => Some(u64::from(epochs) * per_epoch),
            _ => None,
        };
        Cost {
            parameters,
            flops_per_patch: flops_per_patch(architecture),
            state_bytes: parameters * 16,
            activation_bytes: activation_bytes(
                training,
                architecture,
                batch.div_ceil(u64::from(training.accumulation_steps)),
            ),
            pieces,
            steps_per_epoch,
            steps,
        }
    }
}

/// Two operations for each weight that a position meets, attention's two products over half a context on average,
/// and the backward pass at twice the forward one.
fn flops_per_patch(a: &Architecture) -> f64 {
    let (patch, characters) = decoders(a);
    3.0 * (patch + characters)
}

/// The part of the arithmetic that the character decoder does.
pub fn share_of_characters(a: &Architecture) -> f64 {
    let (patch, characters) = decoders(a);
    characters / (patch + characters)
}

/// The forward passes of the patch decoder and of the character decoder.
fn decoders(a: &Architecture) -> (f64, f64) {
    let [size, length, patch_layers, char_layers, h] =
        [a.patch_size, a.patch_length, a.patch_layers, a.char_layers, a.hidden_size].map(|value| value as f64);
    let layer = |context: f64| 24.0 * h * h + 4.0 * h * (context / 2.0);
    let embedding = 2.0 * size * h;
    let patch = patch_layers * layer(length) + embedding;
    // Most patches are not full; a full one is what is counted, its end included.
    let characters = (size + 1.0) * (char_layers * layer(size + 1.0) + 2.0 * 128.0 * h);
    (patch, characters)
}

/// Per position and layer GPT-2 keeps about 17 vectors of the hidden size for the backward pass (two norms, three
/// of attention, eight of the feed-forward part, dropout masks), at the width of the arithmetic.
fn activation_bytes(training: &Training, a: &Architecture, batch: u64) -> u64 {
    let width = if training.precision == Some(Precision::Fp32) { 4.0 } else { 2.0 };
    let [size, length, patch_layers, char_layers, h] =
        [a.patch_size, a.patch_length, a.patch_layers, a.char_layers, a.hidden_size].map(|value| value as f64);
    let patches = if training.patch_sampling == 0 { length } else { training.patch_sampling as f64 };
    let vectors = if training.activation_checkpointing { 1.0 } else { 17.0 };
    let positions = |count: f64, layers: f64| count * layers * vectors * h * width;
    let characters = patches * (size + 1.0);
    let logits = characters * 128.0 * 4.0 * 2.0;
    (batch as f64 * (positions(length, patch_layers) + positions(characters, char_layers) + logits)) as u64
}

/// The pieces of an index whose name matches a glob; nothing if there is no such index.
fn pieces(index: &Path, glob: Option<&str>) -> Option<u64> {
    trainer::read_index(index, glob).ok().map(|entries| entries.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_costs_about_six_operations_a_weight_and_position() {
        let a = Architecture::small();
        let h = a.hidden_size as f64;
        let weights = 12.0 * h * h * (a.patch_layers as f64 + 17.0 * a.char_layers as f64);
        let ratio = flops_per_patch(&a) / (6.0 * weights);
        assert!((1.0..1.2).contains(&ratio), "{ratio}");
    }
}
