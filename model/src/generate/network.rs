//! The network as generation runs it: weights in one type, keys and values kept.
//!
//! Weights of the matrix products and the caches are in the chosen type; the residual stream, norms, embeddings and
//! the sampling are in float32. Nothing that a row goes through depends on the other rows.
use super::attention::{AttentionPlan, CachePosition, UnreadPatches, append_attend, caches};
use crate::architecture::HEAD_SIZE;
use crate::notagen::embed_patches;
use crate::sampling::Sampling;
use crate::{Architecture, Error, NotaGen, Result, VOCABULARY};
use tch::{Device, Kind, Tensor};
use torch_ext::kernels::{self, Kernel};
use torch_ext::{PackedLinear, Span, gelu};

const LAYER_NORM_EPS: f64 = 1e-5;
/// Patches that one slot reads in one round at most, so that a long context does not delay the others.
pub(super) const READ_AT_ONCE: usize = 128;
/// Patches read in one pass at most, of all slots together: what a pass needs beside the caches stays within bounds.
const READ_IN_ONE_PASS: usize = 64 * READ_AT_ONCE;

/// A slot that is to write its next patch.
pub(super) struct Ready {
    pub(super) slot: usize,
    /// Patches that its cache holds when this round has read.
    pub(super) cached: usize,
    /// What the patch begins with.
    pub(super) given: Vec<u8>,
    /// What its characters are drawn with, a number each.
    pub(super) uniform: Vec<f32>,
    pub(super) sampling: Sampling,
}

impl Ready {
    /// The given characters of the patch, -1 where one is to be drawn.
    pub(super) fn fixed(&self, size: usize) -> impl Iterator<Item = i64> {
        (0..size).map(|t| self.given.get(t).map_or(-1, |&c| i64::from(c)))
    }
}

pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    pub(super) fn forward(&self, x: &Tensor, kind: Kind) -> Result<Tensor> {
        let y = x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), LAYER_NORM_EPS, true)?;
        Ok(y.f_to_kind(kind)?)
    }
}

pub(super) struct Layer {
    ln_1: Norm,
    qkv: PackedLinear,
    attended: PackedLinear,
    ln_2: Norm,
    widen: PackedLinear,
    narrow: PackedLinear,
}

impl Layer {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let linears = [&self.qkv, &self.attended, &self.widen, &self.narrow];
        let norms = [&self.ln_1, &self.ln_2].into_iter().flat_map(Norm::tensors);
        linears.into_iter().flat_map(PackedLinear::tensors).chain(norms)
    }

    /// One new token a row. The rest as in [`append_attend`].
    pub(super) fn forward(
        &self,
        x: &mut Residual,
        kind: Kind,
        cache: &Tensor,
        at: &CachePosition,
        keys: i64,
    ) -> Result<()> {
        let qkv = self.qkv.forward(&x.norm(&self.ln_1, kind)?)?;
        self.finish(x, &append_attend(&qkv, cache, at, keys)?)
    }

    /// The rest of the block behind its attention, (tokens, hidden).
    fn finish(&self, x: &mut Residual, attention: &Tensor) -> Result<()> {
        x.add(self.attended.forward(attention)?)?;
        let wide = gelu(&self.widen.forward(&x.norm(&self.ln_2, attention.kind())?)?)?;
        x.add(self.narrow.forward(&wide)?)
    }
}

/// The residual stream, (tokens, hidden), float32: a sum is computed with the norm that follows it, on a card in one kernel.
pub(super) struct Residual {
    /// Nobody else's: it may be written over.
    x: Tensor,
    /// To be added.
    more: Option<Tensor>,
}

impl Residual {
    pub(super) fn new(x: Tensor) -> Residual {
        Residual { x, more: None }
    }

    fn add(&mut self, more: Tensor) -> Result<()> {
        if let Some(before) = self.more.replace(more) {
            self.x = self.x.f_add(&before)?;
        }
        Ok(())
    }

    /// The sum so far.
    fn sum(mut self) -> Result<Tensor> {
        Ok(match self.more.take() {
            Some(more) => self.x.f_add(&more)?,
            None => self.x,
        })
    }

    /// Its layer norm in `kind`.
    pub(super) fn norm(&mut self, norm: &Norm, kind: Kind) -> Result<Tensor> {
        let more = self.more.take();
        let one_kind = more.as_ref().is_none_or(|more| more.kind() == kind);
        if one_kind && kernels::is_own(Kernel::NormStep, self.x.device(), kind) {
            let Norm { weight, bias } = norm;
            return Ok(kernels::norm_step(&self.x, more.as_ref(), weight, bias, LAYER_NORM_EPS, kind)?);
        }
        if let Some(more) = more {
            self.x = self.x.f_add(&more)?;
        }
        norm.forward(&self.x, kind)
    }
}

pub(super) struct Stack {
    pub(super) positions: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) ln_f: Norm,
}

/// Bytes of float32 that a token needs at work: the widest layer and a few of the others.
fn bytes_per_token(a: &Architecture) -> u64 {
    (16 * a.hidden_size * 4) as u64
}

/// Bytes of caches and working memory that one slot takes.
pub(super) fn bytes_per_slot(a: &Architecture, kind: Kind) -> u64 {
    let positions = a.patch_layers * a.patch_length + a.char_layers * a.patch_size;
    let cache = 2 * positions * a.hidden_size * kind.elt_size_in_bytes() as i64;
    cache as u64 + (READ_AT_ONCE as u64 + 1) * bytes_per_token(a)
}

/// Slots that so many bytes hold. Those behind the first 64 take no memory for reading: they read in another pass.
pub(super) fn slots_in(bytes: u64, a: &Architecture, kind: Kind) -> u64 {
    let slot = bytes_per_slot(a, kind);
    let few = (READ_IN_ONE_PASS / READ_AT_ONCE) as u64;
    match bytes.checked_sub(few * slot) {
        None => bytes / slot,
        Some(rest) => few + rest / (slot - READ_AT_ONCE as u64 * bytes_per_token(a)),
    }
}

/// The inference copy of a [`NotaGen`].
pub(super) struct InferenceNetwork {
    pub(super) architecture: Architecture,
    pub(super) device: Device,
    pub(super) kind: Kind,
    /// (hidden, patch size * 128) and (hidden), float32.
    pub(super) patch_embedding: (Tensor, Tensor),
    pub(super) patch: Stack,
    /// (patch size, 128, hidden), float32: what is fed at a place for each character at the place before it.
    character_embedding: Tensor,
    pub(super) character: Stack,
    pub(super) to_logits: PackedLinear,
    pub(super) patch_caches: Vec<Tensor>,
    pub(super) character_caches: Vec<Tensor>,
    /// (slots, hidden), float32: what the patch decoder says about the next patch of each slot.
    pub(super) features: Tensor,
    /// (patch size, slots), int64: each place of a patch, for all slots.
    places: Tensor,
    /// The weights were seen to give finite numbers.
    finite: bool,
}

impl InferenceNetwork {
    pub(super) fn new(model: &NotaGen, kind: Kind) -> Result<InferenceNetwork> {
        let _no_grad = tch::no_grad_guard();
        let (architecture, device) = (model.architecture().clone(), model.device());
        let get = |name: &str, kind: Kind| -> Result<Tensor> {
            let found = model.parameters().iter().find(|(n, _)| n == name);
            let (_, tensor) = found.ok_or_else(|| Error::Missing(name.to_owned()))?;
            // A copy: training may go on with the model while its music is being written.
            Ok(tensor.f_detach()?.f_to_dtype(kind, false, true)?)
        };
        let norm = |name: String| -> Result<Norm> {
            Ok(Norm {
                weight: get(&format!("{name}.weight"), Kind::Float)?,
                bias: get(&format!("{name}.bias"), Kind::Float)?,
            })
        };
        let linear = |name: String| -> Result<PackedLinear> {
            let weight = get(&format!("{name}.weight"), kind)?.f_transpose(0, 1)?;
            Ok(PackedLinear::new(&weight, Some(&get(&format!("{name}.bias"), kind)?))?)
        };
        let stack = |name: &str, layers: i64| -> Result<Stack> {
            let layer = |i: i64| -> Result<Layer> {
                Ok(Layer {
                    ln_1: norm(format!("{name}.h.{i}.ln_1"))?,
                    qkv: linear(format!("{name}.h.{i}.attn.c_attn"))?,
                    attended: linear(format!("{name}.h.{i}.attn.c_proj"))?,
                    ln_2: norm(format!("{name}.h.{i}.ln_2"))?,
                    widen: linear(format!("{name}.h.{i}.mlp.c_fc"))?,
                    narrow: linear(format!("{name}.h.{i}.mlp.c_proj"))?,
                })
            };
            Ok(Stack {
                positions: get(&format!("{name}.wpe.weight"), Kind::Float)?,
                layers: (0..layers).map(layer).collect::<Result<_>>()?,
                ln_f: norm(format!("{name}.ln_f"))?,
            })
        };
        let patch = "patch_level_decoder.patch_embedding";
        let characters = "char_level_decoder.base.transformer";
        let wte = format!("{characters}.wte.weight");
        let character = stack(characters, architecture.char_layers)?;
        let places = character.positions.f_narrow(0, 0, architecture.patch_size)?.f_unsqueeze(1)?;
        Ok(InferenceNetwork {
            patch_embedding: (
                get(&format!("{patch}.weight"), Kind::Float)?.f_transpose(0, 1)?.f_contiguous()?.f_transpose(0, 1)?,
                get(&format!("{patch}.bias"), Kind::Float)?,
            ),
            patch: stack("patch_level_decoder.base", architecture.patch_layers)?,
            character_embedding: get(&wte, Kind::Float)?.f_unsqueeze(0)?.f_add(&places)?,
            character,
            to_logits: PackedLinear::new(&get(&wte, kind)?, None)?,
            patch_caches: Vec::new(),
            character_caches: Vec::new(),
            features: Tensor::f_zeros([0, architecture.hidden_size], (Kind::Float, device))?,
            places: Tensor::f_zeros([0, 0], (Kind::Int64, device))?,
            finite: false,
            architecture,
            device,
            kind,
        })
    }

    /// Allocates caches for so many pieces at once; what they held is lost.
    pub(super) fn resize(&mut self, slots: i64) -> Result<()> {
        self.release();
        let a = &self.architecture;
        let (of, heads) = ((self.kind, self.device), a.heads());
        self.patch_caches = caches(self.patch.layers.len(), [slots, heads, a.patch_length], of)?;
        self.character_caches = caches(self.character.layers.len(), [slots, heads, a.patch_size], of)?;
        self.features = Tensor::f_zeros([slots, a.hidden_size], (Kind::Float, self.device))?;
        let places = Tensor::f_arange(a.patch_size, (Kind::Int64, self.device))?;
        self.places = places.f_unsqueeze(1)?.f_repeat([1, slots])?;
        Ok(())
    }

    /// Gives the caches' memory back.
    pub(super) fn release(&mut self) {
        self.patch_caches.clear();
        self.character_caches.clear();
    }

    /// All tensors that a round reads or writes.
    pub(super) fn tensors(&self) -> Vec<Tensor> {
        let (weight, bias) = &self.patch_embedding;
        let mut all = vec![weight, bias, &self.character_embedding, &self.features, &self.places];
        all.extend(self.to_logits.tensors());
        all.extend(self.patch_caches.iter().chain(&self.character_caches));
        for stack in [&self.patch, &self.character] {
            all.extend([&stack.positions].into_iter().chain(stack.ln_f.tensors()));
            all.extend(stack.layers.iter().flat_map(Layer::tensors));
        }
        all.into_iter().map(Tensor::shallow_clone).collect()
    }

    /// Reads new patches of some slots, each slot at most once.
    pub(super) fn read(&mut self, mut readings: &[UnreadPatches]) -> Result<()> {
        let size = self.architecture.patch_size as usize;
        while !readings.is_empty() {
            let _span = Span::new("read");
            let mut patches = 0;
            let fits = |reading: &&UnreadPatches| {
                patches += reading.patches(size);
                patches <= READ_IN_ONE_PASS
            };
            let now = readings.iter().take_while(fits).count().max(1);
            self.pass(&readings[..now])?;
            readings = &readings[now..];
        }
        Ok(())
    }

    fn pass(&mut self, readings: &[UnreadPatches]) -> Result<()> {
        let size = self.architecture.patch_size as usize;
        let (mut rows, mut slots, mut positions, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for reading in readings {
            for (i, patch) in reading.characters.chunks_exact(size).enumerate() {
                rows.extend(embedded(patch));
                slots.push(reading.slot as i64);
                positions.push((reading.start + i) as i64);
            }
            ends.push(slots.len() as i64 - 1);
        }
        let upload = |numbers: &[i64]| Tensor::from_slice(numbers).f_to_device(self.device);
        let tokens = slots.len() as i64;
        let rows = upload(&rows)?.f_view([tokens, size as i64])?;
        let (slots, positions, ends) = (upload(&slots)?, upload(&positions)?, upload(&ends)?);
        let plan = AttentionPlan::new(readings, size, self.device)?;
        let mut x = Residual::new(self.patches(&rows, &positions)?);
        let at = [Some(&slots), None, None, Some(&positions)];
        for (layer, cache) in self.patch.layers.iter().zip(&mut self.patch_caches) {
            let qkv = layer.qkv.forward(&x.norm(&layer.ln_1, self.kind)?)?;
            let heads = qkv.f_view([tokens, 3, -1, HEAD_SIZE])?;
            let _ = cache.f_index_put_(&at, &heads.f_narrow(1, 1, 2)?, false)?;
            let attended = plan.attend(&heads.f_select(1, 0)?, cache)?;
            layer.finish(&mut x, &attended)?;
        }
        let features = self.patch.ln_f.forward(&x.sum()?.f_index_select(0, &ends)?, Kind::Float)?;
        let _ = self.features.f_index_copy_(0, &slots.f_index_select(0, &ends)?, &features)?;
        Ok(())
    }

    /// What the patch decoder is fed: `rows` (tokens, patch size) as of [`embedded`] and positions (tokens) to (tokens,
    /// hidden), float32.
    pub(super) fn patches(&self, rows: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let places = self.patch.positions.f_index_select(0, positions)?;
        Ok(embed_patches(&self.patch_embedding, rows)?.f_add(&places)?)
    }

    /// What the character decoder is fed at the first place of a patch: features to inputs, (rows, hidden).
    pub(super) fn first(&self, features: &Tensor) -> Result<Tensor> {
        Ok(features.f_add(&self.character.positions.f_select(0, 0)?)?)
    }

    /// What it is fed behind the characters (rows) at `place`: (rows, hidden).
    pub(super) fn next(&self, characters: &Tensor, place: i64) -> Result<Tensor> {
        Ok(self.character_embedding.f_select(0, place + 1)?.f_index_select(0, characters)?)
    }

    pub(super) fn is_checked(&self) -> bool {
        self.finite
    }

    /// Refuses weights that give what is not a finite number; once.
    pub(super) fn check(&mut self, first: Tensor) -> Result<()> {
        if !self.finite && self.logits(first, 0)?.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            let kind = self.kind;
            return Err(Error::Invalid(format!("in {kind:?} the weights predict what is not a finite number")));
        }
        self.finite = true;
        Ok(())
    }

    /// Logits (rows, 128) of the characters at a place of their patches, whose inputs are `x`, (rows, hidden).
    pub(super) fn logits(&self, x: Tensor, place: i64) -> Result<Tensor> {
        let positions = self.places.f_select(0, place)?.f_narrow(0, 0, x.size()[0])?;
        let mut x = Residual::new(x);
        for (layer, cache) in self.character.layers.iter().zip(&self.character_caches) {
            layer.forward(&mut x, self.kind, cache, &CachePosition::Same(place, &positions), place + 1)?;
        }
        Ok(self.to_logits.forward(&x.norm(&self.character.ln_f, self.kind)?)?)
    }
}

/// The rows of the patch embedding's table that a patch is the sum of.
pub(super) fn embedded(patch: &[u8]) -> impl Iterator<Item = i64> {
    patch.iter().enumerate().map(|(t, &c)| t as i64 * VOCABULARY + i64::from(c))
}
