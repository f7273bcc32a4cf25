//! The sizes that make one NotaGen differ from another.

use serde::{Deserialize, Serialize};
use torch_ext::kernels;

/// Characters that a patch may hold: ASCII, with 0 to 2 as padding, begin and end.
pub const VOCABULARY: i64 = kernels::CHARACTERS;

/// Width of one attention head in every NotaGen.
pub const HEAD_SIZE: i64 = kernels::HEAD_SIZE;

/// Characters in a patch of the original's.
pub const PATCH_SIZE: i64 = 16;

/// An [`Architecture`] that no network can have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("model: {field} is {value}, but {rule}")]
pub struct Error {
    /// The field at fault.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it has to be.
    pub rule: &'static str,
}

impl Error {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self.field {
            "hidden_size" => Some("the released models have 768 (small), 1024 (medium) and 1280 (large)".into()),
            _ => None,
        }
    }
}

/// The sizes of a NotaGen (the constants of the original's `config.py`).
///
/// ```
/// let large = model::Architecture::large();
/// assert_eq!((large.heads(), large.parameter_count()), (20, 515_738_880));
/// assert!(model::Architecture { hidden_size: 100, ..large }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Characters in a patch.
    #[serde(default = "default_patch_size")]
    pub patch_size: i64,
    /// Patches that the patch-level decoder sees at once.
    pub patch_length: i64,
    /// Layers of the patch-level decoder.
    pub patch_layers: i64,
    /// Layers of the character-level decoder.
    pub char_layers: i64,
    /// Width of both decoders; a multiple of 64, one head per 64.
    pub hidden_size: i64,
    /// Probability of dropping a value, everywhere GPT-2 does.
    #[serde(default = "default_dropout")]
    pub dropout: f64,
}

/// Operations of a layer for one position that sees half of a context on average.
pub(crate) fn causal_layer(hidden_size: f64, context: f64) -> f64 {
    24.0 * hidden_size * hidden_size + 2.0 * hidden_size * context
}

fn default_patch_size() -> i64 {
    PATCH_SIZE
}

fn default_dropout() -> f64 {
    0.1
}

impl Architecture {
    /// Floating-point operations of a forward pass for a patch behind so many others: two for each weight that it meets,
    /// and attention's two products over half the context on average.
    pub fn patch_operations(&self, context: f64) -> f64 {
        let [size, layers, h] = [self.patch_size, self.patch_layers, self.hidden_size].map(|value| value as f64);
        layers * causal_layer(h, context) + 2.0 * size * h
    }

    /// The same for a character of a patch with so many, its distribution included.
    pub fn character_operations(&self, characters: f64) -> f64 {
        let [layers, h] = [self.char_layers, self.hidden_size].map(|value| value as f64);
        layers * causal_layer(h, characters) + 2.0 * VOCABULARY as f64 * h
    }

    /// NotaGen-small: 110M parameters, 2048 patches.
    pub fn small() -> Self {
        Self::sized(2048, 12, 3, 768)
    }

    /// NotaGen-medium: 244M parameters, 2048 patches.
    pub fn medium() -> Self {
        Self::sized(2048, 16, 3, 1024)
    }

    /// NotaGen-large, and NotaGen-X: 516M parameters, 1024 patches.
    pub fn large() -> Self {
        Self::sized(1024, 20, 6, 1280)
    }

    /// An architecture of these sizes, with the original's patch size and dropout.
    pub fn sized(patch_length: i64, patch_layers: i64, char_layers: i64, hidden_size: i64) -> Self {
        let (patch_size, dropout) = (default_patch_size(), default_dropout());
        Self { patch_size, patch_length, patch_layers, char_layers, hidden_size, dropout }
    }

    /// Attention heads in a layer.
    pub fn heads(&self) -> i64 {
        self.hidden_size / HEAD_SIZE
    }

    /// Refuses sizes that no network can have.
    pub fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("patch_size", self.patch_size),
            ("patch_length", self.patch_length),
            ("patch_layers", self.patch_layers),
            ("char_layers", self.char_layers),
            ("hidden_size", self.hidden_size),
        ];
        check_sizes(&sizes, self.patch_size, self.hidden_size, self.dropout)
    }

    /// Every parameter's name and shape, in the order of PyTorch's `model.parameters()`. The state
    /// dict has one name more, last: [`TIED`], the same tensor as [`TIED_TO`].
    pub fn parameters(&self) -> Vec<(String, Vec<i64>)> {
        let h = self.hidden_size;
        let patch = "patch_level_decoder";
        let mut list = vec![
            (format!("{patch}.patch_embedding.weight"), vec![h, self.patch_size * VOCABULARY]),
            (format!("{patch}.patch_embedding.bias"), vec![h]),
        ];
        gpt2(&mut list, "patch_level_decoder.base", 1, self.patch_length, self.patch_layers, h);
        let positions = self.patch_size + 1;
        gpt2(&mut list, "char_level_decoder.base.transformer", VOCABULARY, positions, self.char_layers, h);
        list
    }

    /// How many numbers the network learns, as PyTorch counts them: a tied tensor once.
    pub fn parameter_count(&self) -> i64 {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }
}

/// What holds for the sizes of every network here; all of `sizes` have to be positive.
pub(crate) fn check_sizes(
    sizes: &[(&'static str, i64)],
    patch_size: i64,
    hidden_size: i64,
    dropout: f64,
) -> Result<(), Error> {
    for &(field, value) in sizes {
        if value < 1 {
            return Err(Error { field, value: value.to_string(), rule: "it must be at least 1" });
        }
        if value > 1 << 20 {
            return Err(Error { field, value: value.to_string(), rule: "it must be at most 1048576" });
        }
    }
    if patch_size < 2 {
        let value = patch_size.to_string();
        return Err(Error { field: "patch_size", value, rule: "a patch holds a character and its end" });
    }
    if hidden_size % HEAD_SIZE != 0 {
        let value = hidden_size.to_string();
        return Err(Error { field: "hidden_size", value, rule: "it must be a multiple of 64, the size of a head" });
    }
    if !(0.0..1.0).contains(&dropout) {
        let value = dropout.to_string();
        return Err(Error { field: "dropout", value, rule: "it must be at least 0 and less than 1" });
    }
    Ok(())
}

/// The output layer's name in the state dict.
pub const TIED: &str = "char_level_decoder.base.lm_head.weight";

/// The embedding that [`TIED`] shares its values with.
pub const TIED_TO: &str = "char_level_decoder.base.transformer.wte.weight";

/// Names and shapes of transformers' `GPT2Model`; its `Conv1D` weights are (in, out).
pub(crate) fn gpt2(
    list: &mut Vec<(String, Vec<i64>)>,
    prefix: &str,
    vocabulary: i64,
    positions: i64,
    layers: i64,
    h: i64,
) {
    let mut add = |name: String, shape: &[i64]| list.push((format!("{prefix}.{name}"), shape.to_vec()));
    add("wte.weight".into(), &[vocabulary, h]);
    add("wpe.weight".into(), &[positions, h]);
    for layer in 0..layers {
        let shapes: [(&str, &[i64]); 12] = [
            ("ln_1.weight", &[h]),
            ("ln_1.bias", &[h]),
            ("attn.c_attn.weight", &[h, 3 * h]),
            ("attn.c_attn.bias", &[3 * h]),
            ("attn.c_proj.weight", &[h, h]),
            ("attn.c_proj.bias", &[h]),
            ("ln_2.weight", &[h]),
            ("ln_2.bias", &[h]),
            ("mlp.c_fc.weight", &[h, 4 * h]),
            ("mlp.c_fc.bias", &[4 * h]),
            ("mlp.c_proj.weight", &[4 * h, h]),
            ("mlp.c_proj.bias", &[h]),
        ];
        for (name, shape) in shapes {
            add(format!("h.{layer}.{name}"), shape);
        }
    }
    add("ln_f.weight".into(), &[h]);
    add("ln_f.bias".into(), &[h]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let millions = |a: Architecture| (a.parameter_count() as f64 / 1e6).round();
        assert_eq!(millions(Architecture::small()), 110.0);
        assert_eq!(millions(Architecture::medium()), 244.0);
        assert_eq!(millions(Architecture::large()), 516.0);
    }

    #[test]
    fn impossible_sizes_are_refused_by_name() {
        let mut broken = Architecture::small();
        broken.hidden_size = 100;
        assert_eq!(broken.check().unwrap_err().field, "hidden_size");
        let mut broken = Architecture::small();
        broken.char_layers = 0;
        assert_eq!(broken.check().unwrap_err().field, "char_layers");
        let mut broken = Architecture::small();
        broken.dropout = f64::NAN;
        assert_eq!(broken.check().unwrap_err().field, "dropout");
        assert!(Architecture::large().check().is_ok());
    }
}
