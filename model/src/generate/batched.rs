//! A round of all slots at once, as a GPU does it: what it is to do goes up in one copy, the new characters come down in one,
//! and between them the host launches two CUDA graphs: the newest patch of every slot, and the sixteen characters of the next.
//! Either is some hundred small kernels, which a host launches more slowly than a GPU runs them.
use super::attention::{CachePosition, UnreadPatches};
use super::network::{InferenceNetwork, Ready, Residual, embedded};
use crate::sampling::Sampling;
use crate::{Architecture, Result};
use serde::Serialize;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use torch_ext::kernels::{self, DrawSettings, Kernel};
use torch_ext::{Graph, Span};

/// So many whole rounds are launched kernel by kernel before the first is recorded: their time is reported, and libraries
/// choose their kernels.
const ROUNDS_BEFORE_RECORDING: u32 = 3;
/// Keys are read up to the longest piece, rounded up to a multiple of this: each multiple has a graph.
const KEYS_ROUNDED_TO: usize = 64;
const COLUMNS: usize = DrawSettings::COLUMNS as usize;

/// What CUDA graphs gained, by the quickest of the rounds in which each slot read a patch and wrote one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CudaGraphStats {
    /// Milliseconds of a round that is launched kernel by kernel.
    pub launched_ms: f64,
    /// Milliseconds of one that is replayed, if there was one.
    pub replayed_ms: Option<f64>,
    /// Whether graphs are in use.
    pub used: bool,
    /// Why nothing could be recorded.
    pub failure: Option<String>,
}

/// What is known of recording work on this device. It outlives a change of the number of slots.
#[derive(Debug, Default)]
struct GraphTrial {
    launched: u32,
    /// Seconds of the quickest round.
    launched_seconds: Option<f64>,
    replayed_seconds: Option<f64>,
    failure: Option<String>,
}

impl GraphTrial {
    /// Whether the next round is to be recorded or replayed.
    fn records(&self, device: Device) -> bool {
        matches!(device, Device::Cuda(_)) && self.failure.is_none() && self.launched >= ROUNDS_BEFORE_RECORDING
    }

    fn note(&mut self, replayed: bool, seconds: f64) {
        let quickest = if replayed { &mut self.replayed_seconds } else { &mut self.launched_seconds };
        *quickest = Some(quickest.map_or(seconds, |least| least.min(seconds)));
        self.launched += u32::from(!replayed);
    }

    /// What there is to report, on a GPU.
    fn stats(&self, device: Device) -> Option<CudaGraphStats> {
        let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
        Some(CudaGraphStats {
            launched_ms: ms(self.launched_seconds).filter(|_| device != Device::Cpu)?,
            replayed_ms: ms(self.replayed_seconds),
            used: self.records(device),
            failure: self.failure.clone(),
        })
    }
}

/// What goes up and comes down in a round, always in the same memory.
struct RoundBuffers {
    patch_size: usize,
    /// The last place of a slot's cache.
    last: usize,
    /// (slots, 3 * patch size + 5), float32, which holds all of these numbers exactly: see [`RoundBuffers::fill`].
    packed: Tensor,
    /// (slots), int64: 0, 1, 2 and so on.
    slots: Tensor,
    /// (slots, patch size), uint8: all characters of the next patches.
    written: Tensor,
}

impl RoundBuffers {
    fn new(slots: i64, a: &Architecture, device: Device) -> Result<RoundBuffers> {
        let columns = 3 * a.patch_size + 2 + DrawSettings::COLUMNS;
        Ok(RoundBuffers {
            patch_size: a.patch_size as usize,
            last: a.patch_length as usize - 1,
            packed: Tensor::f_zeros([slots, columns], (Kind::Float, device))?,
            slots: Tensor::f_arange(slots, (Kind::Int64, device))?,
            written: Tensor::f_zeros([slots, a.patch_size], (Kind::Uint8, device))?,
        })
    }

    /// Says what the next round is to do: `single` are readings of one patch, `longer` those that were done before.
    fn fill(&self, single: &[UnreadPatches], longer: &[UnreadPatches], ready: &[Ready]) -> Result<()> {
        let (slots, columns) = self.packed.size2()?;
        let size = self.patch_size;
        let mut packed = vec![0.0f32; (slots * columns) as usize];
        let mut rows: Vec<SlotInput> =
            packed.chunks_exact_mut(columns as usize).map(|row| SlotInput::new(row, size)).collect();
        for reading in longer {
            *rows[reading.slot].position = self.last.min(reading.start + reading.patches(size)) as f32;
        }
        for ready in ready {
            let row = &mut rows[ready.slot];
            *row.position = self.last.min(ready.cached) as f32;
            row.uniform.copy_from_slice(&ready.uniform);
            row.fixed.iter_mut().zip(ready.fixed(size)).for_each(|(place, c)| *place = c as f32);
            row.settings.copy_from_slice(&ready.sampling.row());
        }
        for reading in single {
            let row = &mut rows[reading.slot];
            (*row.position, *row.reads) = (reading.start as f32, 1.0);
            row.patch.iter_mut().zip(embedded(&reading.characters)).for_each(|(place, c)| *place = c as f32);
        }
        Ok(torch_ext::upload(&Tensor::from_slice(&packed).f_view([slots, columns])?, &self.packed)?)
    }

    fn tensors(&self) -> [&Tensor; 3] {
        [&self.packed, &self.slots, &self.written]
    }

    /// Some columns of `packed`.
    fn columns(&self, start: usize, len: usize) -> Result<Tensor> {
        Ok(self.packed.f_narrow(1, start as i64, len as i64)?)
    }

    /// Columns of `packed` as rows, one after the other: (len, slots).
    fn transposed(&self, start: usize, len: usize, kind: Kind) -> Result<Tensor> {
        Ok(self.columns(start, len)?.f_transpose(0, 1)?.f_contiguous()?.f_to_kind(kind)?)
    }
}

/// What a slot is to do in a round.
struct SlotInput<'a> {
    /// Its newest patch, as rows of the embedding's table.
    patch: &'a mut [f32],
    /// Where the patch's keys and values go. A slot that reads none writes there too: behind all that its cache holds, where
    /// its next reading writes over it before anything attends to it. In a full cache it is the last place, to which nothing
    /// will attend: a full context is shortened, and read again, before another patch is read.
    position: &'a mut f32,
    /// 1 where it reads a patch.
    reads: &'a mut f32,
    uniform: &'a mut [f32],
    /// Characters that are given, -1 where one is to be drawn.
    fixed: &'a mut [f32],
    settings: &'a mut [f32],
}

impl<'a> SlotInput<'a> {
    /// A slot that does nothing: it attends to its first key, and its characters are given.
    fn new(row: &'a mut [f32], size: usize) -> SlotInput<'a> {
        let (patch, row) = row.split_at_mut(size);
        let (uniform, row) = row.split_at_mut(size);
        let (fixed, row) = row.split_at_mut(size);
        let (settings, row) = row.split_at_mut(COLUMNS);
        settings.copy_from_slice(&Sampling::GREEDY.row());
        let (position, reads) = row.split_at_mut(1);
        SlotInput { patch, position: &mut position[0], reads: &mut reads[0], uniform, fixed, settings }
    }
}

/// What is recorded as a graph of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GraphPart {
    /// A patch a slot, attending to so many keys at most.
    Patch(usize),
    /// All characters of the next patches.
    Characters,
}

/// Rounds of all slots at once.
#[derive(Default)]
pub(super) struct BatchedDecode {
    /// For the number of slots that there is.
    buffers: Option<RoundBuffers>,
    graphs: Vec<(GraphPart, Graph)>,
    trial: GraphTrial,
}

impl BatchedDecode {
    /// Gives the memory of buffers and graphs back.
    pub(super) fn release(&mut self) {
        self.graphs.clear();
        self.buffers = None;
    }

    /// What there is to report, on a GPU.
    pub(super) fn stats(&self, device: Device) -> Option<CudaGraphStats> {
        self.trial.stats(device)
    }

    /// All characters of the next patches, those given included. `meanwhile` runs while the GPU works.
    pub(super) fn round(
        &mut self,
        network: &mut InferenceNetwork,
        readings: Vec<UnreadPatches>,
        ready: &[Ready],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<Vec<u8>>> {
        let size = network.architecture.patch_size as usize;
        let (single, longer): (Vec<UnreadPatches>, Vec<UnreadPatches>) =
            readings.into_iter().partition(|reading| reading.patches(size) == 1);
        network.read(&longer)?;
        if single.is_empty() && ready.is_empty() {
            return Ok(Vec::new());
        }
        let _span = Span::new("write");
        // Graphs of other buffers, which an error took along, are of no use.
        let buffers = self.buffers.take().map_or_else(
            || {
                self.graphs.clear();
                RoundBuffers::new(network.features.size()[0], &network.architecture, network.device)
            },
            Ok,
        )?;
        let started = Instant::now();
        buffers.fill(&single, &longer, ready)?;
        let mut replayed = self.read(network, &buffers, &single)?;
        if !ready.is_empty() {
            replayed &= self.write(network, &buffers, ready)?;
        }
        meanwhile();
        let written = Vec::<u8>::try_from(buffers.written.f_to_device(Device::Cpu)?.f_view([-1])?)?;
        if longer.is_empty() && !single.is_empty() && !ready.is_empty() {
            self.trial.note(replayed, started.elapsed().as_secs_f64());
        }
        self.buffers = Some(buffers);
        Ok(ready.iter().map(|ready| written[ready.slot * size..][..size].to_vec()).collect())
    }

    /// The newest patch of every slot that has one. Returns whether it was replayed.
    fn read(&mut self, network: &InferenceNetwork, buffers: &RoundBuffers, single: &[UnreadPatches]) -> Result<bool> {
        let Some(longest) = single.iter().map(|reading| reading.start + 1).max() else { return Ok(true) };
        let most = network.architecture.patch_length as usize;
        // Our own kernel reads as far as each slot needs: one graph for all.
        let own = kernels::is_own(Kernel::AppendAttend, network.device, network.kind);
        let keys = if own { most } else { longest.next_multiple_of(KEYS_ROUNDED_TO).min(most) };
        self.run(network, buffers, GraphPart::Patch(keys))
    }

    /// The characters of every slot's next patch. Returns whether it was replayed.
    fn write(&mut self, network: &mut InferenceNetwork, buffers: &RoundBuffers, ready: &[Ready]) -> Result<bool> {
        if !network.is_checked() {
            let slots: Vec<i64> = ready.iter().map(|ready| ready.slot as i64).collect();
            let slots = Tensor::from_slice(&slots).f_to_device(network.device)?;
            network.check(network.first(&network.features.f_index_select(0, &slots)?)?)?;
        }
        self.run(network, buffers, GraphPart::Characters)
    }

    /// Does a part, perhaps twice, by its graph where there is one. Returns whether it was replayed.
    fn run(&mut self, network: &InferenceNetwork, buffers: &RoundBuffers, part: GraphPart) -> Result<bool> {
        let work = || match part {
            GraphPart::Patch(keys) => network.patch_step(buffers, keys as i64),
            GraphPart::Characters => network.characters(buffers),
        };
        if !self.trial.records(network.device) {
            work()?;
            return Ok(false);
        }
        if let Some((_, graph)) = self.graphs.iter().find(|(known, _)| *known == part) {
            graph.replay()?;
            return Ok(true);
        }
        let mut uses = network.tensors();
        uses.extend(buffers.tensors().map(Tensor::shallow_clone));
        match Graph::record(network.device, self.graphs.first().map(|(_, graph)| graph), uses, work) {
            Ok(graph) => self.graphs.push((part, graph)),
            Err(error) if error.is_out_of_memory() => return Err(error),
            Err(error) => {
                self.trial.failure = Some(error.to_string());
                work()?;
            }
        }
        Ok(false)
    }
}

impl InferenceNetwork {
    /// Reads a patch a slot at its position, and keeps the features of those slots that have one.
    fn patch_step(&self, buffers: &RoundBuffers, keys: i64) -> Result<()> {
        let size = buffers.patch_size;
        let behind = 3 * size + COLUMNS;
        let patches = buffers.columns(0, size)?.f_to_kind(Kind::Int64)?;
        let positions = buffers.columns(behind, 1)?.f_to_kind(Kind::Int64)?;
        let kind = (self.kind, self.device);
        let beyond = Tensor::f_arange(keys, (Kind::Int64, self.device))?.f_gt_tensor(&positions)?;
        let mask = Tensor::f_zeros(beyond.size(), kind)?.f_masked_fill_(&beyond, f64::NEG_INFINITY)?;
        let mask = mask.f_view([-1, 1, 1, keys])?;
        let positions = positions.f_view([-1])?;
        let at = CachePosition::Each { rows: &buffers.slots, positions: &positions, mask: &mask };
        let mut x = Residual::new(self.patches(&patches, &positions)?);
        for (layer, cache) in self.patch.layers.iter().zip(&self.patch_caches) {
            layer.forward(&mut x, self.kind, cache, &at, keys)?;
        }
        let features = x.norm(&self.patch.ln_f, Kind::Float)?;
        let reads = buffers.columns(behind + 1, 1)?.f_ne(0)?;
        self.features.shallow_clone().f_copy_(&features.f_where_self(&reads, &self.features)?)?;
        Ok(())
    }

    /// Writes all characters of a patch a slot.
    fn characters(&self, buffers: &RoundBuffers) -> Result<()> {
        let size = buffers.patch_size;
        let uniform = buffers.transposed(size, size, Kind::Float)?;
        let fixed = buffers.transposed(2 * size, size, Kind::Int64)?;
        let settings = DrawSettings::new(&buffers.columns(3 * size, COLUMNS)?, self.kind)?;
        let mut x = self.first(&self.features)?;
        let mut written: Vec<Tensor> = Vec::with_capacity(size);
        for place in 0..size as i64 {
            if let Some(character) = written.last() {
                x = self.next(character, place - 1)?;
            }
            let (uniform, fixed) = (uniform.f_select(0, place)?, fixed.f_select(0, place)?);
            written.push(kernels::draw(&self.logits(x.shallow_clone(), place)?, &uniform, &settings, &fixed)?);
        }
        buffers.written.shallow_clone().f_copy_(&Tensor::f_stack(&written, 1)?)?;
        Ok(())
    }
}
