//! The network as generation runs it: weights in one type, keys and values kept.
//!
//! Weights of the matrix products and the caches are in the chosen type; the residual stream, norms, embeddings and
//! the sampling are in float32. Nothing that a row goes through depends on the other rows.
use super::together::{LOOK, Recordings, Together, Trial};
use crate::architecture::HEAD_SIZE;
use crate::gpt2::gelu;
use crate::notagen::embed_patches;
use crate::sampling::{Draws, Sampling};
use crate::{Architecture, Error, NotaGen, Result, VOCABULARY};
use std::ops::Range;
use tch::{Device, Kind, Tensor};
use torch_ext::Linear;

const EOS: u8 = 2;
const LAYER_NORM_EPS: f64 = 1e-5;
/// Batched attention reads keys up to the longest piece, rounded up to this.
const KEYS: i64 = 64;

/// Patches for one slot to read: (slot, patches that its cache holds, characters of new patches).
pub(super) struct Reading {
    pub(super) slot: usize,
    pub(super) start: usize,
    pub(super) characters: Vec<u8>,
}

/// The next patch of some slots, a row each.
pub(super) struct Rows {
    /// (rows, hidden), float32: what the next character is predicted from.
    pub(super) x: Tensor,
    /// (rows, patch size), float32: what characters are drawn with.
    pub(super) uniform: Tensor,
    /// (rows, patch size), int64: characters that are given, -1 where there is none.
    pub(super) fixed: Tensor,
    /// Behind so many characters none is given.
    pub(super) given: i64,
}

/// There is no end mark among the characters behind those given.
fn goes_on(given: &[u8], written: &[u8]) -> bool {
    !written[given.len().min(written.len())..].contains(&EOS)
}

/// How keys are attended to, and characters written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    /// Slot after slot, each with its own length: no wasted reading (CPU).
    Each,
    /// All slots at once behind a mask: few launches (GPU).
    Together,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn forward(&self, x: &Tensor, kind: Kind) -> Result<Tensor> {
        let y = x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), LAYER_NORM_EPS, true)?;
        Ok(y.f_to_kind(kind)?)
    }
}

struct Layer {
    ln_1: Norm,
    qkv: Linear,
    attended: Linear,
    ln_2: Norm,
    widen: Linear,
    narrow: Linear,
}

impl Layer {
    /// The rest of the block behind its attention: (tokens, hidden) of both to (tokens, hidden).
    fn finish(&self, x: &Tensor, attention: &Tensor) -> Result<Tensor> {
        let x = x.f_add(&self.attended.forward(attention)?)?;
        let wide = gelu(&self.widen.forward(&self.ln_2.forward(&x, attention.kind())?)?)?;
        Ok(x.f_add(&self.narrow.forward(&wide)?)?)
    }
}

struct Stack {
    positions: Tensor,
    layers: Vec<Layer>,
    ln_f: Norm,
}

/// Keys and values of one layer, each (slots, heads, positions, 64).
struct Cache {
    keys: Tensor,
    values: Tensor,
}

/// Bytes of caches and working memory that one slot takes.
pub(super) fn bytes_per_slot(a: &Architecture, kind: Kind) -> u64 {
    let positions = a.patch_layers * a.patch_length + a.char_layers * (a.patch_size + 1);
    let cache = 2 * positions * a.hidden_size * kind.elt_size_in_bytes() as i64;
    // Reading 128 patches at once: the widest layer and a few of the others, in float32.
    let work = 128 * 16 * a.hidden_size * 4;
    (cache + work) as u64
}

fn caches(layers: usize, shape: [i64; 4], kind: Kind, device: Device) -> Result<Vec<Cache>> {
    let zeros = || Tensor::f_zeros(shape, (kind, device));
    (0..layers).map(|_| Ok(Cache { keys: zeros()?, values: zeros()? })).collect()
}

/// The inference copy of a [`NotaGen`].
pub(super) struct Network {
    pub(super) architecture: Architecture,
    pub(super) device: Device,
    pub(super) kind: Kind,
    pub(super) attention: Attention,
    /// (hidden, patch size * 128) and (hidden), float32.
    patch_embedding: (Tensor, Tensor),
    patch: Stack,
    character_embedding: Tensor,
    character: Stack,
    to_logits: Linear,
    patch_caches: Vec<Cache>,
    character_caches: Vec<Cache>,
    /// (slots, hidden): what the patch decoder says about the next patch of each slot.
    features: Tensor,
    together: Option<Together>,
    trial: Trial,
    /// What the weights give was looked at.
    sound: bool,
}

impl Network {
    pub(super) fn new(model: &NotaGen, kind: Kind) -> Result<Network> {
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
        let linear = |name: String| -> Result<Linear> {
            let weight = get(&format!("{name}.weight"), kind)?.f_transpose(0, 1)?;
            Ok(Linear::new(&weight, Some(&get(&format!("{name}.bias"), kind)?))?)
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
        Ok(Network {
            patch_embedding: (
                get(&format!("{patch}.weight"), Kind::Float)?.f_transpose(0, 1)?.f_contiguous()?.f_transpose(0, 1)?,
                get(&format!("{patch}.bias"), Kind::Float)?,
            ),
            patch: stack("patch_level_decoder.base", architecture.patch_layers)?,
            character_embedding: get(&wte, Kind::Float)?,
            character: stack(characters, architecture.char_layers)?,
            to_logits: Linear::new(&get(&wte, kind)?, None)?,
            patch_caches: Vec::new(),
            character_caches: Vec::new(),
            features: Tensor::f_zeros([0, architecture.hidden_size], (Kind::Float, device))?,
            together: None,
            trial: Trial::default(),
            sound: false,
            attention: if device == Device::Cpu { Attention::Each } else { Attention::Together },
            architecture,
            device,
            kind,
        })
    }

    /// Makes room for so many pieces at once; what the caches held is lost.
    pub(super) fn resize(&mut self, slots: i64) -> Result<()> {
        self.release();
        let a = &self.architecture;
        let (kind, device) = (self.kind, self.device);
        let shape = [slots, a.heads(), a.patch_length, HEAD_SIZE];
        self.patch_caches = caches(self.patch.layers.len(), shape, kind, device)?;
        let shape = [slots, a.heads(), a.patch_size + 1, HEAD_SIZE];
        self.character_caches = caches(self.character.layers.len(), shape, kind, device)?;
        self.features = Tensor::f_zeros([slots, a.hidden_size], (Kind::Float, device))?;
        Ok(())
    }

    /// Gives the caches' memory back.
    pub(super) fn release(&mut self) {
        self.together = None;
        self.patch_caches.clear();
        self.character_caches.clear();
    }

    /// What recordings have gained so far, on a GPU.
    pub(super) fn recordings(&self) -> Option<Recordings> {
        self.trial.recordings(self.device)
    }

    /// Reads new patches of some slots, each slot at most once and at least one patch.
    pub(super) fn read(&mut self, readings: &[Reading]) -> Result<()> {
        let size = self.architecture.patch_size as usize;
        let (mut rows, mut slots, mut positions, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for reading in readings {
            for (i, patch) in reading.characters.chunks_exact(size).enumerate() {
                rows.extend(patch.iter().enumerate().map(|(t, &c)| t as i64 * VOCABULARY + i64::from(c)));
                slots.push(reading.slot as i64);
                positions.push((reading.start + i) as i64);
            }
            ends.push(slots.len() as i64 - 1);
        }
        let upload = |numbers: &[i64]| Tensor::from_slice(numbers).f_to_device(self.device);
        let tokens = slots.len() as i64;
        let rows = upload(&rows)?.f_view([tokens, size as i64])?;
        let (slots, positions, ends) = (upload(&slots)?, upload(&positions)?, upload(&ends)?);
        let plan = Plan::new(readings, size, self.attention, &self.features)?;
        let mut x =
            embed_patches(&self.patch_embedding, &rows)?.f_add(&self.patch.positions.f_index_select(0, &positions)?)?;
        let at = [Some(&slots), None, Some(&positions)];
        for (layer, cache) in self.patch.layers.iter().zip(&mut self.patch_caches) {
            let qkv = layer.qkv.forward(&layer.ln_1.forward(&x, self.kind)?)?;
            let heads = qkv.f_view([tokens, 3, -1, HEAD_SIZE])?;
            let _ = cache.keys.f_index_put_(&at, &heads.f_select(1, 1)?, false)?;
            let _ = cache.values.f_index_put_(&at, &heads.f_select(1, 2)?, false)?;
            let attended = plan.attend(&heads.f_select(1, 0)?, cache)?;
            x = layer.finish(&x, &attended)?;
        }
        let features = self.patch.ln_f.forward(&x.f_index_select(0, &ends)?, Kind::Float)?;
        let _ = self.features.f_index_copy_(0, &slots.f_index_select(0, &ends)?, &features)?;
        Ok(())
    }

    /// Writes the next patch of some slots: the characters behind those given, up to and with the first end mark.
    ///
    /// `given` has each slot's number and characters, `uniform` one number a slot and character of a patch, `sampling`
    /// how each slot's characters are drawn.
    pub(super) fn write(
        &mut self,
        given: &[(usize, Vec<u8>)],
        uniform: &[f32],
        sampling: &[Sampling],
    ) -> Result<Vec<Vec<u8>>> {
        let size = self.architecture.patch_size;
        let slots: Vec<i64> = given.iter().map(|(slot, _)| *slot as i64).collect();
        // -1 where a character is to be drawn.
        let fixed =
            |characters: &[u8]| (0..size as usize).map(|t| characters.get(t).map_or(-1, |&c| i64::from(c))).collect();
        let fixed: Vec<Vec<i64>> = given.iter().map(|(_, characters)| fixed(characters)).collect();
        let rows = Rows {
            x: self.features.f_index_select(0, &Tensor::from_slice(&slots).f_to_device(self.device)?)?,
            uniform: Tensor::from_slice(uniform).f_view([-1, size])?,
            fixed: Tensor::from_slice(&fixed.concat()).f_view([-1, size])?,
            given: given.iter().map(|(_, characters)| characters.len()).max().unwrap_or(0) as i64,
        };
        if !self.sound {
            let logits = self.to_logits.forward(&self.step(&rows.x, 0)?)?;
            if logits.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                let kind = self.kind;
                return Err(Error::Invalid(format!("in {kind:?} the weights predict what is not a finite number")));
            }
            self.sound = true;
        }
        let mut written = match self.attention {
            Attention::Each => self.write_each(rows, given, sampling)?,
            Attention::Together => self.write_together(&rows, given, sampling)?,
        };
        for ((_, characters), written) in given.iter().zip(&mut written) {
            written.drain(..characters.len());
            if let Some(end) = written.iter().position(|&c| c == EOS) {
                written.truncate(end + 1);
            }
        }
        Ok(written)
    }

    /// The host looks at every character, and ended patches leave the batch once it gets a good deal smaller without them.
    fn write_each(
        &mut self,
        mut rows: Rows,
        given: &[(usize, Vec<u8>)],
        sampling: &[Sampling],
    ) -> Result<Vec<Vec<u8>>> {
        let size = self.architecture.patch_size;
        let mut live: Vec<usize> = (0..given.len()).collect();
        let mut draws = Draws::new(sampling, self.device)?;
        let mut written: Vec<Vec<u8>> = vec![Vec::with_capacity(size as usize); given.len()];
        for place in 0..size {
            let mut character = self.character(&rows, place, &draws)?;
            for (row, &c) in live.iter().zip(&Vec::<i64>::try_from(&character)?) {
                written[*row].push(c as u8);
            }
            let going: Vec<i64> = (0..live.len() as i64)
                .filter(|&i| goes_on(&given[live[i as usize]].1, &written[live[i as usize]]))
                .collect();
            if going.is_empty() || place + 1 == size {
                break;
            }
            if going.len() * 4 <= live.len() * 3 {
                live = going.iter().map(|&i| live[i as usize]).collect();
                draws = Draws::new(&live.iter().map(|&row| sampling[row]).collect::<Vec<_>>(), self.device)?;
                let going = Tensor::from_slice(&going);
                self.keep_rows(&going, place + 1)?;
                rows.uniform = rows.uniform.f_index_select(0, &going)?;
                rows.fixed = rows.fixed.f_index_select(0, &going)?;
                character = character.f_index_select(0, &going)?;
            }
            rows.x = self.character_embedding.f_index_select(0, &character)?;
        }
        Ok(written)
    }

    /// All slots go on together, whether there is something to write for them or not.
    fn write_together(
        &mut self,
        rows: &Rows,
        given: &[(usize, Vec<u8>)],
        sampling: &[Sampling],
    ) -> Result<Vec<Vec<u8>>> {
        let slots = self.features.size()[0];
        let mut together = match self.together.take() {
            Some(together) => together,
            None => Together::new(slots, &self.architecture, self.device)?,
        };
        let mut trial = std::mem::take(&mut self.trial);
        together.fill(rows)?;
        let mut sampling = sampling.to_vec();
        sampling.resize(slots as usize, sampling.first().copied().unwrap_or_default());
        let draws = Draws::new(&sampling, self.device)?;
        let mut written: Vec<Vec<u8>> = vec![Vec::new(); given.len()];
        let size = self.architecture.patch_size;
        for (part, start) in (0..size).step_by(LOOK as usize).enumerate() {
            let places = start..size.min(start + LOOK);
            let work = |rows: &Rows, out: &Tensor| self.characters(rows, places.clone(), &draws, out);
            let read = together.part(&mut trial, part, given.len() as i64, draws.alike(), &work)?;
            for (row, new) in written.iter_mut().zip(read.chunks_exact(LOOK as usize)) {
                row.extend(new.iter().take(places.clone().count()).map(|&c| c as u8));
            }
            if !given.iter().zip(&written).any(|((_, given), written)| goes_on(given, written)) {
                break;
            }
        }
        (self.together, self.trial) = (Some(together), trial);
        Ok(written)
    }

    /// Characters at these places of a patch, into the first columns of `out`; `rows` is left ready for the next place.
    fn characters(&self, rows: &Rows, places: Range<i64>, draws: &Draws, out: &Tensor) -> Result<()> {
        for (column, place) in places.enumerate() {
            let character = self.character(rows, place, draws)?;
            out.f_select(1, column as i64)?.f_copy_(&character)?;
            rows.x.shallow_clone().f_copy_(&self.character_embedding.f_index_select(0, &character)?)?;
        }
        Ok(())
    }

    /// The character of every row at a place of its patch, int64.
    fn character(&self, rows: &Rows, place: i64, draws: &Draws) -> Result<Tensor> {
        let logits = self.to_logits.forward(&self.step(&rows.x, place)?)?;
        let drawn = draws.draw(&logits, &rows.uniform.f_select(1, place)?)?;
        if place >= rows.given {
            return Ok(drawn);
        }
        let fixed = rows.fixed.f_select(1, place)?;
        Ok(fixed.f_where_self(&fixed.f_ge(0)?, &drawn)?)
    }

    /// One character of all rows: inputs (rows, hidden) at a place in the patch to the final features, in `kind`.
    fn step(&self, input: &Tensor, place: i64) -> Result<Tensor> {
        let rows = input.size()[0];
        let mut x = input.f_add(&self.character.positions.f_select(0, place)?)?;
        for (layer, cache) in self.character.layers.iter().zip(&self.character_caches) {
            let qkv = layer.qkv.forward(&layer.ln_1.forward(&x, self.kind)?)?;
            let heads = qkv.f_view([rows, 3, -1, 1, HEAD_SIZE])?.f_unbind(1)?;
            let (keys, values) = (cache.keys.f_narrow(0, 0, rows)?, cache.values.f_narrow(0, 0, rows)?);
            keys.f_narrow(2, place, 1)?.f_copy_(&heads[1])?;
            values.f_narrow(2, place, 1)?.f_copy_(&heads[2])?;
            let attended =
                attend(&heads[0], &keys.f_narrow(2, 0, place + 1)?, &values.f_narrow(2, 0, place + 1)?, None, false)?;
            x = layer.finish(&x, &attended.f_view([rows, -1])?)?;
        }
        self.character.ln_f.forward(&x, self.kind)
    }

    /// Moves the character caches of these rows to the front.
    fn keep_rows(&mut self, rows: &Tensor, places: i64) -> Result<()> {
        let n = rows.size()[0];
        for tensor in self.character_caches.iter().flat_map(|cache| [&cache.keys, &cache.values]) {
            let kept = tensor.f_narrow(2, 0, places)?.f_index_select(0, rows)?;
            tensor.f_narrow(0, 0, n)?.f_narrow(2, 0, places)?.f_copy_(&kept)?;
        }
        Ok(())
    }
}

fn attend(query: &Tensor, keys: &Tensor, values: &Tensor, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention(query, keys, values, mask, 0.0, causal, None, false)?)
}

/// Who attends to what in one reading, the same for every layer.
struct Plan {
    /// Tokens of new patches one after the other: their number, slot, and patches before them.
    runs: Vec<Run>,
    /// Slots with one new patch that attend together: token numbers, slots, keys and a mask (slots, 1, 1, keys).
    together: Option<(Tensor, Tensor, i64, Tensor)>,
    slots: i64,
}

struct Run {
    token: i64,
    slot: i64,
    /// Neighbouring slots of the same length that attend in one call.
    slots: i64,
    start: i64,
    len: i64,
    mask: Option<Tensor>,
}

impl Plan {
    fn new(readings: &[Reading], size: usize, attention: Attention, features: &Tensor) -> Result<Plan> {
        let (slots, device) = (features.size()[0], features.device());
        let (mut runs, mut tokens, mut single, mut starts): (Vec<Run>, Vec<i64>, Vec<i64>, Vec<i64>) =
            Default::default();
        let mut token = 0;
        for reading in readings {
            let (slot, start) = (reading.slot as i64, reading.start as i64);
            let len = (reading.characters.len() / size) as i64;
            if len == 1 && attention == Attention::Together {
                tokens.push(token);
                single.push(slot);
                starts.push(start);
            } else if let Some(run) = runs.last_mut().filter(|run| {
                (run.start, run.len) == (start, len)
                    && run.slot + run.slots == slot
                    && run.token + run.slots * len == token
            }) {
                run.slots += 1;
            } else {
                let mask = if start > 0 && len > 1 {
                    Some(Tensor::f_ones([len, start + len], (Kind::Bool, device))?.f_tril(start)?)
                } else {
                    None
                };
                runs.push(Run { token, slot, slots: 1, start, len, mask });
            }
            token += len;
        }
        let together = if tokens.is_empty() {
            None
        } else {
            let longest = starts.iter().max().map_or(1, |start| start + 1);
            let keys = (longest as u64).next_multiple_of(KEYS as u64) as i64;
            // A slot that has nothing to read attends to its first key: without any it would not be a number.
            let mut last = vec![0; slots as usize];
            for (&slot, &start) in single.iter().zip(&starts) {
                last[slot as usize] = start;
            }
            let last = Tensor::from_slice(&last).f_to_device(device)?.f_unsqueeze(1)?;
            let mask =
                Tensor::f_arange(keys, (Kind::Int64, device))?.f_le_tensor(&last)?.f_view([slots, 1, 1, keys])?;
            let upload = |numbers: &[i64]| Tensor::from_slice(numbers).f_to_device(device);
            Some((upload(&tokens)?, upload(&single)?, keys, mask))
        };
        Ok(Plan { runs, together, slots })
    }

    /// Queries (tokens, heads, 64) to what they attend to, (tokens, hidden).
    fn attend(&self, query: &Tensor, cache: &Cache) -> Result<Tensor> {
        let (tokens, heads, _) = query.size3()?;
        let out = Tensor::f_empty([tokens, heads * HEAD_SIZE], (query.kind(), query.device()))?;
        for run in &self.runs {
            let n = run.slots * run.len;
            let query = query.f_narrow(0, run.token, n)?.f_view([run.slots, run.len, heads, HEAD_SIZE])?;
            let of = |t: &Tensor| t.f_narrow(0, run.slot, run.slots)?.f_narrow(2, 0, run.start + run.len);
            let (keys, values) = (of(&cache.keys)?, of(&cache.values)?);
            let causal = run.len > 1 && run.mask.is_none();
            let attended = attend(&query.f_transpose(1, 2)?, &keys, &values, run.mask.as_ref(), causal)?;
            let attended = attended.f_transpose(1, 2)?.f_reshape([n, heads * HEAD_SIZE])?;
            out.f_narrow(0, run.token, n)?.f_copy_(&attended)?;
        }
        if let Some((token, slot, longest, mask)) = &self.together {
            let longest = (*longest).min(cache.keys.size()[2]);
            let mut queries = Tensor::f_zeros([self.slots, heads, HEAD_SIZE], (query.kind(), query.device()))?;
            let _ = queries.f_index_copy_(0, slot, &query.f_index_select(0, token)?)?;
            let (keys, values) = (cache.keys.f_narrow(2, 0, longest)?, cache.values.f_narrow(2, 0, longest)?);
            let mask = mask.f_narrow(3, 0, longest)?;
            let attended = attend(&queries.f_unsqueeze(2)?, &keys, &values, Some(&mask), false)?;
            let attended = attended.f_view([self.slots, -1])?.f_index_select(0, slot)?;
            let _ = out.shallow_clone().f_index_copy_(0, token, &attended)?;
        }
        Ok(out)
    }
}
