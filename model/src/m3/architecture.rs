//! The sizes of an M3 (arXiv 2410.13267, section 3.2; the constants of the original's `code/config.py`).

use serde::{Deserialize, Serialize};

use crate::architecture::{Error, HEAD_SIZE, VOCABULARY, causal_layer, check_sizes, gpt2};

/// The output layer's name in the state dict.
pub(crate) const TIED: &str = "decoder.base.lm_head.weight";
/// The embedding that [`TIED`] shares its values with.
pub(crate) const TIED_TO: &str = "decoder.base.transformer.wte.weight";

/// The sizes of an M3. The original's are the default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct M3Architecture {
    /// Characters in a patch.
    pub patch_size: i64,
    /// Patches that the encoder sees at once.
    pub patch_length: i64,
    /// Layers of the encoder.
    pub patch_layers: i64,
    /// Layers of the decoder of characters; 0 in CLaMP 2, which has none.
    pub token_layers: i64,
    /// Width; a multiple of 64, one head per 64.
    pub hidden_size: i64,
    /// Probability of dropping a value, everywhere BERT and GPT-2 do.
    pub dropout: f64,
}

impl Default for M3Architecture {
    fn default() -> Self {
        Self { patch_size: 64, patch_length: 512, patch_layers: 12, token_layers: 3, hidden_size: 768, dropout: 0.1 }
    }
}

impl M3Architecture {
    /// Attention heads in a layer.
    pub fn heads(&self) -> i64 {
        self.hidden_size / HEAD_SIZE
    }

    /// Floating-point operations of a forward pass for a patch among so many: two for each weight that it meets, and
    /// attention's two products over the whole context.
    pub fn patch_operations(&self, context: f64) -> f64 {
        let [size, layers, h] = [self.patch_size, self.patch_layers, self.hidden_size].map(|value| value as f64);
        layers * causal_layer(h, 2.0 * context) + 2.0 * size * h
    }

    /// The same for a character of a masked patch with so many, its distribution included.
    pub fn character_operations(&self, characters: f64) -> f64 {
        let [layers, h] = [self.token_layers, self.hidden_size].map(|value| value as f64);
        layers * causal_layer(h, characters) + 2.0 * VOCABULARY as f64 * h
    }

    /// Refuses sizes that no network to be trained can have.
    pub fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("patch_size", self.patch_size),
            ("patch_length", self.patch_length),
            ("patch_layers", self.patch_layers),
            ("token_layers", self.token_layers),
            ("hidden_size", self.hidden_size),
        ];
        check_sizes(&sizes, self.patch_size, self.hidden_size, self.dropout)
    }

    /// Every parameter's name and shape, in the order of PyTorch's `model.parameters()`. The state dict has one name
    /// more, last: `decoder.base.lm_head.weight`, the same tensor as the decoder's embedding.
    pub fn parameters(&self) -> Vec<(String, Vec<i64>)> {
        let mut list = self.encoder_parameters("encoder");
        let (positions, layers) = (self.patch_size, self.token_layers);
        gpt2(&mut list, "decoder.base.transformer", VOCABULARY, positions, layers, self.hidden_size);
        list
    }

    /// Names and shapes of the original's `M3PatchEncoder`, whose `base` is transformers' `BertModel`.
    pub(crate) fn encoder_parameters(&self, prefix: &str) -> Vec<(String, Vec<i64>)> {
        let h = self.hidden_size;
        let mut list = Vec::new();
        let mut add = |name: &str, shape: &[i64]| list.push((format!("{prefix}.{name}"), shape.to_vec()));
        add("patch_embedding.weight", &[h, self.patch_size * VOCABULARY]);
        add("patch_embedding.bias", &[h]);
        add("base.embeddings.word_embeddings.weight", &[1, h]);
        add("base.embeddings.position_embeddings.weight", &[self.patch_length, h]);
        add("base.embeddings.token_type_embeddings.weight", &[2, h]);
        add("base.embeddings.LayerNorm.weight", &[h]);
        add("base.embeddings.LayerNorm.bias", &[h]);
        for layer in 0..self.patch_layers {
            let shapes: [(&str, &[i64]); 8] = [
                ("attention.self.query", &[h, h]),
                ("attention.self.key", &[h, h]),
                ("attention.self.value", &[h, h]),
                ("attention.output.dense", &[h, h]),
                ("attention.output.LayerNorm", &[h]),
                ("intermediate.dense", &[4 * h, h]),
                ("output.dense", &[h, 4 * h]),
                ("output.LayerNorm", &[h]),
            ];
            for (name, shape) in shapes {
                add(&format!("base.encoder.layer.{layer}.{name}.weight"), shape);
                add(&format!("base.encoder.layer.{layer}.{name}.bias"), &shape[..1]);
            }
        }
        add("base.pooler.dense.weight", &[h, h]);
        add("base.pooler.dense.bias", &[h]);
        list
    }

    /// How many numbers the network learns, as PyTorch counts them: a tied tensor once.
    pub fn parameter_count(&self) -> i64 {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }
}
