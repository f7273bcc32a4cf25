//! What a training takes of a device's memory, counted from the sizes of the network. Held against counted allocations in
//! `trainer/tests/memory.rs`; docs/performance.md has the figures.
use crate::precision::Dtype;
use model::Architecture;
use serde::Serialize;

/// What goes through the network together, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Pieces of full length.
    pub pieces: u64,
    /// Patches that are predicted, of all pieces together (`patch_sampling`); all if not given.
    pub predicted: Option<u64>,
    /// The type of the arithmetic.
    pub precision: Dtype,
    /// Whether activations are computed again in the backward pass.
    pub checkpointing: bool,
    /// Whether the network drops out.
    pub dropout: bool,
    /// Whether the optimizer's state is in the host's memory.
    pub offload: bool,
    /// Whether it runs on a CPU, whose kernels keep more.
    pub cpu: bool,
}

/// Bytes of a training at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In float32.
    pub weights: u64,
    /// In float32; kept between steps.
    pub gradients: u64,
    /// AdamW's two moments in float32.
    pub moments: u64,
    /// The weights of matrix products in the type of the arithmetic, where that is another.
    pub casts: u64,
    /// What the forward pass keeps for the backward pass.
    pub activations: u64,
    /// What comes and goes while the backward pass runs.
    pub passing: u64,
    /// Of all these, what is in the host's memory and not the device's.
    pub host: u64,
}

impl Memory {
    /// Of the device.
    pub fn device(&self) -> u64 {
        self.total() - self.host
    }

    /// Of device and host together.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.moments + self.casts + self.activations + self.passing
    }

    /// Of a training with full contexts and full patches.
    pub fn of(a: &Architecture, step: &Step) -> Memory {
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
        // The patch embedding, turned round.
        let embedding = 4 * 128 * patch_size * hidden;
        // Logits, their logarithms and gradients in float32: before the blocks' backward passes begin.
        let logits = characters.tokens * (128 * (step.width() + 12) + hidden * step.width());
        let [kept_patch, kept_characters] = [&patch, &characters].map(|stack| stack.kept(step));
        let [passing_patch, passing_characters] = [&patch, &characters].map(|stack| stack.passing(step));
        let moments = 8 * parameters;
        let memory = Memory {
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
        // Forward all weights are cast; backward one block is computed again, with its weights.
        let again = [&patch, &characters].map(|stack| stack.block(step) + stack.passing(step) + casts(1));
        let again = again[0].max(again[1]).max(logits);
        Memory { passing: again.saturating_sub(memory.casts), ..memory }
    }
}

impl Step {
    /// Bytes of a number in a matrix product.
    fn width(&self) -> u64 {
        if self.precision == Dtype::Fp32 { 4 } else { 2 }
    }
}

/// One of the two decoders.
struct Stack {
    layers: u64,
    /// Of a step's part.
    tokens: u64,
    /// Tokens of one sequence.
    context: u64,
    hidden: u64,
}

impl Stack {
    /// What one block keeps: two states of the residual stream in float32; in the type of the arithmetic the outputs of
    /// two norms, queries, keys, values, what is attended to, and the wide layer before and after its activation; means
    /// and deviations of two norms, a number a head of attention, and which numbers drop out.
    fn block(&self, step: &Step) -> u64 {
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

    /// Only a CPU's kernel that drops out writes attention down: after softmax, what drops out, and what is left.
    fn attention(&self, step: &Step) -> u64 {
        if !(step.cpu && step.dropout) {
            return 0;
        }
        let heads = self.hidden / 64;
        self.tokens * (self.context * heads * 3 + 2 * self.hidden) * step.width()
    }

    /// What all blocks keep, and the state behind them.
    fn kept(&self, step: &Step) -> u64 {
        let block = if step.checkpointing { 4 * self.hidden * self.tokens } else { self.block(step) };
        self.layers * block + self.tokens * self.hidden * 4
    }

    /// Gradients of a block's residual stream, of the output of its wide half and of its wide layer; the one behind the
    /// activation takes the place of what the activation gave.
    fn passing(&self, step: &Step) -> u64 {
        let cast = if step.width() == 4 { 0 } else { step.width() };
        self.tokens * self.hidden * (4 + cast + 4 * step.width())
    }
}
