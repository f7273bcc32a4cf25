//! How much memory a training takes, counted from the sizes of the network. `trainer/tests/memory.rs` compares it with
//! counted allocations; docs/performance.md has the figures.
use crate::Dtype;
use model::Architecture;
use serde::Serialize;

/// What goes through the network together, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Pieces of full length.
    pub pieces: u64,
    /// Patches that are predicted, of all pieces together (`patch_sampling`); all if not given.
    pub predicted: Option<u64>,
    /// The type of matrix products.
    pub precision: Dtype,
    /// Whether activations are checkpointed: computed again in the backward pass.
    pub checkpointing: bool,
    /// Whether there is dropout.
    pub dropout: bool,
    /// Whether the optimizer's state is in the host's memory.
    pub offload: bool,
    /// Whether it runs on a CPU, whose kernels keep more.
    pub cpu: bool,
}

/// Bytes of a training at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainMemory {
    /// In float32.
    pub weights: u64,
    /// In float32; kept between steps.
    pub gradients: u64,
    /// AdamW's two moments in float32.
    pub moments: u64,
    /// The weights of matrix products in their type, where it is not float32.
    pub casts: u64,
    /// What the forward pass keeps for the backward pass.
    pub activations: u64,
    /// What the backward pass needs for a while.
    pub passing: u64,
    /// Of all this, what is in the host's memory and not in the device's.
    pub host: u64,
}

impl TrainMemory {
    /// Bytes on the device.
    pub fn device(&self) -> u64 {
        self.total() - self.host
    }

    /// Bytes on device and host together.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.moments + self.casts + self.activations + self.passing
    }

    /// The memory of a training with full contexts and full patches.
    pub fn of(a: &Architecture, step: &StepShape) -> TrainMemory {
        let parameters = u64::try_from(a.parameter_count()).unwrap_or(0);
        let size = |number: i64| u64::try_from(number).unwrap_or(0);
        let [hidden, length, patch_size] = [a.hidden_size, a.patch_length, a.patch_size].map(size);
        let patches = step.pieces * length;
        let predicted = step.predicted.unwrap_or(u64::MAX).min(patches - step.pieces);
        let patch = Stack { layers: size(a.patch_layers), tokens: patches, context: length, hidden };
        let characters =
            Stack { layers: size(a.char_layers), tokens: predicted * patch_size, context: patch_size, hidden };
        let half = step.precision != Dtype::Fp32;
        let casts = |layers: u64| if half { 2 * 12 * hidden * hidden * layers } else { 0 };
        // The patch embedding, transposed.
        let embedding = 4 * 128 * patch_size * hidden;
        // Logits, their logarithms and gradients in float32: before the blocks' backward passes begin.
        let logits = characters.tokens * (128 * (step.width() + 12) + hidden * step.width());
        let [kept_patch, kept_characters] = [&patch, &characters].map(|stack| stack.kept(step));
        let [passing_patch, passing_characters] = [&patch, &characters].map(|stack| stack.passing(step));
        let moments = 8 * parameters;
        let memory = TrainMemory {
            weights: 4 * parameters,
            gradients: 4 * parameters,
            moments,
            casts: casts(patch.layers + characters.layers),
            activations: kept_patch + kept_characters + embedding,
            passing: passing_patch.max(passing_characters).max(logits),
            host: if step.offload { moments } else { 0 },
        };
        if !step.checkpointing {
            return memory;
        }
        // The forward pass casts all weights; the backward pass computes one block again, with its casts.
        let again = [&patch, &characters].map(|stack| stack.block(step) + stack.passing(step) + casts(1));
        let again = again[0].max(again[1]).max(logits);
        // On a card the casts of the forward pass were still there (measured on an H100 and an H200).
        let passing = if step.cpu { again.saturating_sub(memory.casts) } else { again };
        TrainMemory { passing, ..memory }
    }
}

impl StepShape {
    /// Bytes of a number in a matrix product.
    fn width(&self) -> u64 {
        if self.precision == Dtype::Fp32 { 4 } else { 2 }
    }
}

/// One of the two decoders.
struct Stack {
    layers: u64,
    /// Tokens of a micro-batch.
    tokens: u64,
    /// Tokens of one sequence.
    context: u64,
    hidden: u64,
}

impl Stack {
    /// What one block keeps. In float32: two states of the residual stream. In the type of matrix products: the outputs of two
    /// norms, queries, keys, values, the output of attention, and the wide layer before and after its activation. Besides:
    /// means and deviations of two norms, a number per head of attention, and the masks of dropout.
    fn block(&self, step: &StepShape) -> u64 {
        let width = step.width();
        let dropped = match (step.dropout, step.cpu) {
            (false, _) => 0,
            (true, false) => 2,
            (true, true) => 2 * width,
        };
        let vectors = 2 * 4 + (2 + 3 + 1 + 4 + 4) * width + dropped;
        let heads = self.hidden / 64;
        self.tokens * (self.hidden * vectors + 16 + 4 * heads) + self.attention(step)
    }

    /// Only a CPU's kernel with dropout keeps the attention weights: after softmax, the mask, and after dropout.
    fn attention(&self, step: &StepShape) -> u64 {
        if !(step.cpu && step.dropout) {
            return 0;
        }
        let heads = self.hidden / 64;
        self.tokens * (self.context * heads * 3 + 2 * self.hidden) * step.width()
    }

    /// What all blocks keep, and the state after the last.
    fn kept(&self, step: &StepShape) -> u64 {
        let block = if step.checkpointing { 4 * self.hidden * self.tokens } else { self.block(step) };
        self.layers * block + self.tokens * self.hidden * 4
    }

    /// Gradients of a block's residual stream, of the output of its wide half and of its wide layer. The one after the
    /// activation overwrites the activation's output.
    fn passing(&self, step: &StepShape) -> u64 {
        let cast = if step.width() == 4 { 0 } else { step.width() };
        self.tokens * self.hidden * (4 + cast + 4 * step.width())
    }
}
