//! The encoder: BERT (Devlin et al. 2019) over patches, after transformers' `modeling_bert.py` and the original's
//! `M3PatchEncoder`: post-norm, `gelu` by the error function, learned positions, the first token-type row added.
//!
//! Runs of different lengths share one tensor of shape (patches, hidden); see [`crate::sequences`].

use tch::{Device, Kind, Tensor};
use torch_ext::OneDnnLinear;

use super::M3Architecture;
use super::patch_runs::PatchRuns;
use crate::Result;
use crate::architecture::VOCABULARY;
use crate::gpt2::{Init, Mode};
use crate::notagen::embed_patches;
use crate::sequences::{Sequences, TorchResult};

const LAYER_NORM_EPS: f64 = 1e-12;
const INITIAL_STD: f64 = 0.02;

/// Gives the tensor of a name and shape, new or from a file.
pub(super) type TensorSource<'a> = dyn FnMut(String, &[i64], Init) -> Result<Tensor> + 'a;

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(source: &mut TensorSource, name: String, hidden: i64) -> Result<Norm> {
        Ok(Norm {
            weight: source(format!("{name}.weight"), &[hidden], Init::Constant(1.0))?,
            bias: source(format!("{name}.bias"), &[hidden], Init::Constant(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor) -> TorchResult {
        Ok(x.f_layer_norm([self.weight.size()[0]], Some(&self.weight), Some(&self.bias), LAYER_NORM_EPS, true)?)
    }

    fn shallow_clone(&self) -> Norm {
        Norm { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() }
    }
}

/// A linear layer.
enum Linear {
    /// Weight (out, in) and bias.
    Trainable(Tensor, Tensor),
    /// Packed for speed, without gradients.
    Frozen(OneDnnLinear),
}

impl Linear {
    fn new(source: &mut TensorSource, name: String, input: i64, output: i64) -> Result<Linear> {
        Ok(Linear::Trainable(
            source(format!("{name}.weight"), &[output, input], Init::Normal(INITIAL_STD))?,
            source(format!("{name}.bias"), &[output], Init::Constant(0.0))?,
        ))
    }

    fn forward(&self, x: &Tensor) -> TorchResult {
        match self {
            Linear::Trainable(weight, bias) => Ok(x.f_linear(weight, Some(bias))?),
            Linear::Frozen(layer) => layer.forward(x, false),
        }
    }

    fn forward_gelu(&self, x: &Tensor) -> TorchResult {
        match self {
            Linear::Trainable(..) => Ok(self.forward(x)?.f_gelu("none")?),
            Linear::Frozen(layer) => layer.forward(x, true),
        }
    }

    /// Stays as it is where there is no faster layout.
    fn freeze(&mut self) -> Result<()> {
        if let Linear::Trainable(weight, bias) = self
            && let Some(layer) = OneDnnLinear::new(weight, bias)?
        {
            *self = Linear::Frozen(layer);
        }
        Ok(())
    }

    fn shallow_clone(&self) -> Linear {
        match self {
            Linear::Trainable(weight, bias) => Linear::Trainable(weight.shallow_clone(), bias.shallow_clone()),
            Linear::Frozen(layer) => Linear::Frozen(layer.shallow_clone()),
        }
    }
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
    dropout: f64,
}

impl Layer {
    fn new(source: &mut TensorSource, name: &str, h: i64, dropout: f64) -> Result<Layer> {
        let attention = format!("{name}.attention");
        Ok(Layer {
            query: Linear::new(source, format!("{attention}.self.query"), h, h)?,
            key: Linear::new(source, format!("{attention}.self.key"), h, h)?,
            value: Linear::new(source, format!("{attention}.self.value"), h, h)?,
            attended: Linear::new(source, format!("{attention}.output.dense"), h, h)?,
            attended_norm: Norm::new(source, format!("{attention}.output.LayerNorm"), h)?,
            intermediate: Linear::new(source, format!("{name}.intermediate.dense"), h, 4 * h)?,
            output: Linear::new(source, format!("{name}.output.dense"), 4 * h, h)?,
            output_norm: Norm::new(source, format!("{name}.output.LayerNorm"), h)?,
            dropout,
        })
    }

    fn freeze(&mut self) -> Result<()> {
        let layers = [&mut self.query, &mut self.key, &mut self.value, &mut self.attended];
        layers.into_iter().chain([&mut self.intermediate, &mut self.output]).try_for_each(Linear::freeze)
    }

    fn shallow_clone(&self) -> Layer {
        Layer {
            query: self.query.shallow_clone(),
            key: self.key.shallow_clone(),
            value: self.value.shallow_clone(),
            attended: self.attended.shallow_clone(),
            attended_norm: self.attended_norm.shallow_clone(),
            intermediate: self.intermediate.shallow_clone(),
            output: self.output.shallow_clone(),
            output_norm: self.output_norm.shallow_clone(),
            dropout: self.dropout,
        }
    }

    /// (patches, hidden) to (patches, hidden).
    fn forward(&self, x: &Tensor, sequences: &Sequences, train: bool) -> TorchResult {
        let attended = self.attended.forward(&self.attention(x, sequences, train)?)?.f_dropout(self.dropout, train)?;
        let x = self.attended_norm.forward(&attended.f_add(x)?)?;
        let output = self.output.forward(&self.intermediate.forward_gelu(&x)?)?;
        self.output_norm.forward(&output.f_dropout(self.dropout, train)?.f_add(&x)?)
    }

    /// Attention inside each run, in both directions.
    fn attention(&self, x: &Tensor, sequences: &Sequences, train: bool) -> TorchResult {
        let qkv = [self.query.forward(x)?, self.key.forward(x)?, self.value.forward(x)?];
        sequences.attend(qkv.each_ref(), if train { self.dropout } else { 0.0 }, false)
    }
}

/// The original's `M3PatchEncoder`, without what it never uses.
pub(super) struct Encoder {
    patch_embedding: (Tensor, Tensor),
    position: Tensor,
    token_type: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    dropout: f64,
}

impl Encoder {
    /// Asks `source` for the tensors in PyTorch's order, those that are never used included.
    pub(super) fn new(source: &mut TensorSource, prefix: &str, a: &M3Architecture) -> Result<Encoder> {
        let (h, inputs) = (a.hidden_size, a.patch_size * VOCABULARY);
        let base = format!("{prefix}.base");
        let embeddings = format!("{base}.embeddings");
        let normal = || Init::Normal(INITIAL_STD);
        let bound = Init::Uniform((inputs as f64).powf(-0.5));
        let patch_embedding = (
            source(format!("{prefix}.patch_embedding.weight"), &[h, inputs], normal())?,
            source(format!("{prefix}.patch_embedding.bias"), &[h], bound)?,
        );
        // Of the one token that is BERT's padding, which starts at zero.
        let _ = source(format!("{embeddings}.word_embeddings.weight"), &[1, h], Init::Constant(0.0))?;
        let position = source(format!("{embeddings}.position_embeddings.weight"), &[a.patch_length, h], normal())?;
        let token_type = source(format!("{embeddings}.token_type_embeddings.weight"), &[2, h], normal())?;
        let norm = Norm::new(source, format!("{embeddings}.LayerNorm"), h)?;
        let layer = |i| Layer::new(source, &format!("{base}.encoder.layer.{i}"), h, a.dropout);
        let layers = (0..a.patch_layers).map(layer).collect::<Result<_>>()?;
        Linear::new(source, format!("{base}.pooler.dense"), h, h)?;
        Ok(Encoder { patch_embedding, position, token_type, norm, layers, dropout: a.dropout })
    }

    pub(super) fn device(&self) -> Device {
        self.position.device()
    }

    /// Packs the weights for speed. They can no longer be trained or changed.
    pub(super) fn freeze(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(Layer::freeze)
    }

    /// The features of the runs' patches, (patches, rounded up; hidden).
    pub(super) fn forward(&self, runs: &PatchRuns, mode: Mode) -> Result<Tensor> {
        let place = Tensor::f_embedding(&self.position, &runs.position, -1, false, false)?;
        let embedded = embed_patches(&self.patch_embedding, &runs.rows)?.f_to_kind(place.kind())?;
        let embedded = embedded.f_add(&self.token_type.f_select(0, 0)?)?.f_add(&place)?;
        let mut x = self.norm.forward(&embedded)?.f_dropout(self.dropout, mode.train)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = match mode.checkpointing {
                None => layer.forward(&x, &runs.sequences, mode.train)?,
                Some(how) => {
                    let (layer, sequences) = (layer.shallow_clone(), runs.sequences.shallow_clone());
                    let forward = move |x: &Tensor| layer.forward(x, &sequences, mode.train);
                    how.run(&x, mode.train, (0, i), forward)?
                }
            };
        }
        Ok(x)
    }
}

/// The mean over each run in float32, (runs, hidden).
pub(super) fn pool(encoded: &Tensor, runs: &PatchRuns) -> Result<Tensor> {
    let hidden = encoded.size2()?.1;
    let (mut means, mut first) = (Vec::new(), 0);
    for group in runs.sequences.equal_runs() {
        let rows = group.rows * group.len;
        let features = encoded.f_narrow(0, first, rows)?.f_view([group.rows, group.len, hidden])?;
        means.push(features.f_mean_dim([1].as_slice(), false, Kind::Float)?);
        first += rows;
    }
    Ok(Tensor::f_cat(&means, 0)?)
}
