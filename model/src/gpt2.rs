//! GPT-2 blocks (Radford et al. 2019), after transformers' `modeling_gpt2.py`: pre-norm, `gelu_new`, `Conv1D` weights
//! of shape (in, out), learned positions.
//!
//! Sequences of different lengths share one tensor of shape (tokens, hidden) without padding (see [`crate::sequences`]). All
//! but attention works on tokens alone.
use crate::sequences::{Sequences, TorchResult};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

const LAYER_NORM_EPS: f64 = 1e-5;
const INITIAL_STD: f64 = 0.02;

/// How one forward pass is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// Dropout is applied, with the architecture's probability.
    pub train: bool,
    /// Recompute each block in the backward pass instead of keeping its activations.
    pub checkpointing: Option<Checkpointing>,
}

/// What a recomputed block needs to be the same twice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checkpointing {
    /// Seeds the dropout of every block.
    pub seed: i64,
    /// The autocast type: blocks are recomputed on autograd's own thread. `Float` is none.
    pub autocast: Kind,
    /// Each block of a network has a seed of its own. Once block i over patches and block i over characters shared one, and a
    /// training that began so goes on so.
    pub distinct_seeds: bool,
}

impl Checkpointing {
    /// Runs block `i` of those that come behind the first `before` of the network.
    pub(crate) fn run(
        self,
        x: &Tensor,
        train: bool,
        (before, i): (i64, usize),
        block: impl Fn(&Tensor) -> TorchResult + Send + 'static,
    ) -> TorchResult {
        let number = i as i64 + if self.distinct_seeds { before } else { 0 };
        torch_ext::checkpoint(x, move |x| {
            let _region = torch_ext::Autocast::new(x.device(), self.autocast)?;
            if train {
                tch::manual_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
            }
            block(x)
        })
    }
}

impl Mode {
    /// No dropout.
    pub const EVAL: Mode = Mode { train: false, checkpointing: None };
    /// Dropout, activations kept.
    pub const TRAIN: Mode = Mode { train: true, checkpointing: None };
}

/// The tensors of a model under PyTorch's names, in the order of PyTorch's `model.parameters()`.
pub(crate) struct Builder {
    pub(crate) tensors: Vec<(String, Tensor)>,
    device: Device,
    /// Tensors stay uninitialised: they are to be loaded, and drawing half a billion numbers takes seconds.
    blank: bool,
}

pub(crate) enum Init {
    Normal(f64),
    Uniform(f64),
    Constant(f64),
}

impl Builder {
    /// Tensors drawn from `seed`. Without one they are uninitialised until they are loaded.
    pub(crate) fn new(device: Device, seed: Option<u64>) -> Builder {
        if let Some(seed) = seed {
            tch::manual_seed(seed as i64);
        }
        Builder { tensors: Vec::new(), device, blank: seed.is_none() }
    }

    pub(crate) fn tensor(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor> {
        let on = if self.blank { self.device } else { Device::Cpu };
        let mut tensor = Tensor::f_empty(shape, (Kind::Float, on))?;
        if !self.blank {
            tensor = match init {
                Init::Normal(std) => tensor.f_normal_(0.0, std)?,
                Init::Uniform(bound) => tensor.f_uniform_(-bound, bound)?,
                Init::Constant(value) => tensor.f_fill_(value)?,
            };
        }
        let tensor = tensor.f_to_device(self.device)?.f_set_requires_grad(true)?;
        self.tensors.push((name, tensor.shallow_clone()));
        Ok(tensor)
    }
}

/// Layer norm over the last dimension.
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(b: &mut Builder, name: &str, hidden: i64) -> Result<Norm> {
        Ok(Norm {
            weight: b.tensor(format!("{name}.weight"), &[hidden], Init::Constant(1.0))?,
            bias: b.tensor(format!("{name}.bias"), &[hidden], Init::Constant(0.0))?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> TorchResult {
        Ok(x.f_layer_norm([self.weight.size()[0]], Some(&self.weight), Some(&self.bias), LAYER_NORM_EPS, true)?)
    }

    /// Of x + delta, where there is a delta: the sum, and its norm.
    fn after(&self, x: &Tensor, delta: Option<&Tensor>) -> torch_ext::Result<(Tensor, Tensor)> {
        match delta {
            Some(delta) => torch_ext::kernels::add_norm(x, delta, &self.weight, &self.bias, LAYER_NORM_EPS),
            None => Ok((x.shallow_clone(), self.forward(x)?)),
        }
    }

    fn map(&self, f: &dyn Fn(&Tensor) -> Tensor) -> Norm {
        Norm { weight: f(&self.weight), bias: f(&self.bias) }
    }
}

/// GPT-2's `Conv1D`: a linear layer with its weight stored as (in, out).
pub(crate) struct Conv1d {
    weight: Tensor,
    bias: Tensor,
}

impl Conv1d {
    fn new(b: &mut Builder, name: &str, input: i64, output: i64, std: f64) -> Result<Conv1d> {
        Ok(Conv1d {
            weight: b.tensor(format!("{name}.weight"), &[input, output], Init::Normal(std))?,
            bias: b.tensor(format!("{name}.bias"), &[output], Init::Constant(0.0))?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> TorchResult {
        Ok(self.bias.f_addmm(x, &self.weight)?)
    }

    fn map(&self, f: &dyn Fn(&Tensor) -> Tensor) -> Conv1d {
        Conv1d { weight: f(&self.weight), bias: f(&self.bias) }
    }
}

/// One transformer block.
pub(crate) struct Block {
    pub(crate) ln_1: Norm,
    pub(crate) c_attn: Conv1d,
    pub(crate) attn_proj: Conv1d,
    pub(crate) ln_2: Norm,
    c_fc: Conv1d,
    mlp_proj: Conv1d,
    dropout: f64,
}

impl Block {
    fn new(b: &mut Builder, name: &str, hidden: i64, layers: i64, dropout: f64) -> Result<Block> {
        // Residual projections start smaller, by the depth (GPT-2's initialisation).
        let residual = INITIAL_STD / (2.0 * layers as f64).sqrt();
        Ok(Block {
            ln_1: Norm::new(b, &format!("{name}.ln_1"), hidden)?,
            c_attn: Conv1d::new(b, &format!("{name}.attn.c_attn"), hidden, 3 * hidden, INITIAL_STD)?,
            attn_proj: Conv1d::new(b, &format!("{name}.attn.c_proj"), hidden, hidden, residual)?,
            ln_2: Norm::new(b, &format!("{name}.ln_2"), hidden)?,
            c_fc: Conv1d::new(b, &format!("{name}.mlp.c_fc"), hidden, 4 * hidden, INITIAL_STD)?,
            mlp_proj: Conv1d::new(b, &format!("{name}.mlp.c_proj"), 4 * hidden, hidden, residual)?,
            dropout,
        })
    }

    fn map(&self, f: &dyn Fn(&Tensor) -> Tensor) -> Block {
        Block {
            ln_1: self.ln_1.map(f),
            c_attn: self.c_attn.map(f),
            attn_proj: self.attn_proj.map(f),
            ln_2: self.ln_2.map(f),
            c_fc: self.c_fc.map(f),
            mlp_proj: self.mlp_proj.map(f),
            dropout: self.dropout,
        }
    }

    /// The residual stream (tokens, hidden), and what is still to be added to it, to the same: the next norm adds it.
    fn forward(
        &self,
        x: &Tensor,
        delta: Option<&Tensor>,
        sequences: &Sequences,
        train: bool,
    ) -> torch_ext::Result<(Tensor, Tensor)> {
        let (x, normed) = self.ln_1.after(x, delta)?;
        let attended =
            sequences.attend_packed(&self.c_attn.forward(&normed)?, if train { self.dropout } else { 0.0 })?;
        let delta = self.attn_proj.forward(&attended)?.f_dropout(self.dropout, train)?;
        let (x, normed) = self.ln_2.after(&x, Some(&delta))?;
        Ok((x, self.feed_forward(&normed)?.f_dropout(self.dropout, train)?))
    }

    fn feed_forward(&self, normed: &Tensor) -> TorchResult {
        self.mlp_proj.forward(&torch_ext::gelu(&self.c_fc.forward(normed)?)?)
    }
}

/// A GPT-2 without its token embedding: positions, blocks and the final norm.
pub(crate) struct Decoder {
    pub(crate) wte: Tensor,
    pub(crate) wpe: Tensor,
    pub(crate) blocks: Vec<Block>,
    pub(crate) ln_f: Norm,
    /// Blocks of the network before these.
    pub(crate) first_block: i64,
    dropout: f64,
}

impl Decoder {
    pub(crate) fn new(
        b: &mut Builder,
        name: &str,
        vocabulary: i64,
        positions: i64,
        layers: i64,
        hidden: i64,
        dropout: f64,
    ) -> Result<Decoder> {
        let wte = b.tensor(format!("{name}.wte.weight"), &[vocabulary, hidden], Init::Normal(INITIAL_STD))?;
        let wpe = b.tensor(format!("{name}.wpe.weight"), &[positions, hidden], Init::Normal(INITIAL_STD))?;
        let blocks = (0..layers)
            .map(|i| Block::new(b, &format!("{name}.h.{i}"), hidden, layers, dropout))
            .collect::<Result<_>>()?;
        let ln_f = Norm::new(b, &format!("{name}.ln_f"), hidden)?;
        Ok(Decoder { wte, wpe, blocks, ln_f, first_block: 0, dropout })
    }

    /// `embedded` (tokens, hidden) and each token's place in its sequence (tokens) to features (tokens, hidden).
    pub(crate) fn forward(
        &self,
        embedded: &Tensor,
        position: &Tensor,
        sequences: &Sequences,
        mode: Mode,
    ) -> Result<Tensor> {
        let tokens = sequences.tokens();
        if embedded.size()[0] != tokens {
            let found = embedded.size();
            return Err(Error::Shape { what: "embedded tokens".into(), expected: vec![tokens, found[1]], found });
        }
        let place = Tensor::f_embedding(&self.wpe, position, -1, false, false)?;
        let mut x = embedded.f_add(&place)?.f_dropout(self.dropout, mode.train)?;
        let mut delta = None;
        for (i, block) in self.blocks.iter().enumerate() {
            match mode.checkpointing {
                None => {
                    let (sum, last) = block.forward(&x, delta.as_ref(), sequences, mode.train)?;
                    (x, delta) = (sum, Some(last));
                }
                Some(how) => {
                    let (block, sequences) = (block.map(&Tensor::shallow_clone), sequences.shallow_clone());
                    let forward = move |x: &Tensor| {
                        let (x, delta) = block.forward(x, None, &sequences, mode.train)?;
                        Ok(x.f_add(&delta)?)
                    };
                    x = how.run(&x, mode.train, (self.first_block, i), forward)?;
                }
            }
        }
        if let Some(delta) = delta {
            x = x.f_add(&delta)?;
        }
        Ok(self.ln_f.forward(&x)?)
    }
}
