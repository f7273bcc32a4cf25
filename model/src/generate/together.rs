//! A round of all slots at once, as a GPU does it: what it is to do goes up in one copy, the new characters come down in one,
//! and between them the host launches two recordings (CUDA graphs): the newest patch of every slot, and the sixteen
//! characters of the next. A step of either is some hundred small kernels, which a host launches more slowly than a GPU runs
//! them.
use super::attention::{At, Reading};
use super::network::{Network, Ready, Residual, embedded};
use super::out_of_memory;
use crate::sampling::{Sampling, Settings, draw};
use crate::{Architecture, Result};
use serde::Serialize;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use torch_ext::kernels::{self, Kernel};
use torch_ext::{Graph, Span};

/// So many whole rounds are launched kernel by kernel before the first is recorded: what that takes is told, and libraries
/// get ready.
const LAUNCHED: u32 = 3;
/// Keys are read up to the longest piece, rounded up to a multiple of this: each has a recording.
const KEYS: usize = 64;

/// What recording the work of a GPU gained, by the quickest of the rounds in which each slot read a patch and wrote one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Recordings {
    /// Milliseconds of a round that is launched kernel by kernel.
    pub launched_ms: f64,
    /// Milliseconds of one that is replayed; none as long as there was none.
    pub replayed_ms: Option<f64>,
    /// Recordings are in use.
    pub used: bool,
    /// Why nothing could be recorded.
    pub failure: Option<String>,
}

/// What is known of recordings. It outlives a change of the number of slots.
#[derive(Debug, Default)]
pub(super) struct Trial {
    launched: u32,
    /// Seconds of the quickest round.
    launched_seconds: Option<f64>,
    replayed_seconds: Option<f64>,
    failure: Option<String>,
}

impl Trial {
    /// Whether the next round is to be recorded or replayed.
    fn records(&self, device: Device) -> bool {
        matches!(device, Device::Cuda(_)) && self.failure.is_none() && self.launched >= LAUNCHED
    }

    fn note(&mut self, replayed: bool, seconds: f64) {
        let quickest = if replayed { &mut self.replayed_seconds } else { &mut self.launched_seconds };
        *quickest = Some(quickest.map_or(seconds, |least| least.min(seconds)));
        self.launched += u32::from(!replayed);
    }

    /// What there is to report, on a GPU.
    pub(super) fn recordings(&self, device: Device) -> Option<Recordings> {
        let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
        Some(Recordings {
            launched_ms: ms(self.launched_seconds).filter(|_| device != Device::Cpu)?,
            replayed_ms: ms(self.replayed_seconds),
            used: self.records(device),
            failure: self.failure.clone(),
        })
    }
}

/// What goes up and comes down in a round, always in the same memory.
struct Memory {
    patch_size: usize,
    /// The last place of a slot's cache.
    last: usize,
    /// (slots, 3 * patch size + 5), float32, which holds all of these numbers exactly: see [`Memory::fill`].
    packed: Tensor,
    /// (slots), int64: 0, 1, 2 and so on.
    slots: Tensor,
    /// (slots, patch size), uint8: all characters of the next patches.
    written: Tensor,
}

impl Memory {
    fn new(slots: i64, a: &Architecture, device: Device) -> Result<Memory> {
        let columns = 3 * a.patch_size + 2 + Settings::COLUMNS;
        Ok(Memory {
            patch_size: a.patch_size as usize,
            last: a.patch_length as usize - 1,
            packed: Tensor::f_zeros([slots, columns], (Kind::Float, device))?,
            slots: Tensor::f_arange(slots, (Kind::Int64, device))?,
            written: Tensor::f_zeros([slots, a.patch_size], (Kind::Uint8, device))?,
        })
    }

    /// Says what the next round is to do: `single` are readings of one patch, `longer` those that were done before.
    fn fill(&self, single: &[Reading], longer: &[Reading], ready: &[Ready]) -> Result<()> {
        let (slots, columns) = self.packed.size2()?;
        let size = self.patch_size;
        let mut packed = vec![0.0f32; (slots * columns) as usize];
        let mut rows: Vec<Row> = packed.chunks_exact_mut(columns as usize).map(|row| Row::new(row, size)).collect();
        for reading in longer {
            *rows[reading.slot].position = self.last.min(reading.start + reading.patches(size)) as f32;
        }
        for ready in ready {
            let row = &mut rows[ready.slot];
            *row.position = self.last.min(ready.cached) as f32;
            row.uniform.copy_from_slice(&ready.uniform);
            row.fixed.iter_mut().zip(ready.fixed(size)).for_each(|(place, c)| *place = c as f32);
            row.settings.copy_from_slice(&ready.sampling.packed());
        }
        for reading in single {
            let row = &mut rows[reading.slot];
            (*row.position, *row.reads) = (reading.start as f32, 1.0);
            row.patch.iter_mut().zip(embedded(&reading.characters)).for_each(|(place, c)| *place = c as f32);
        }
        Ok(torch_ext::upload(&Tensor::from_slice(&packed).f_view([slots, columns])?, &self.packed)?)
    }

    /// Some columns of `packed`.
    fn columns(&self, start: usize, len: usize) -> Result<Tensor> {
        Ok(self.packed.f_narrow(1, start as i64, len as i64)?)
    }

    /// Columns of `packed` as rows, one after the other: (len, slots).
    fn turned(&self, start: usize, len: usize, kind: Kind) -> Result<Tensor> {
        Ok(self.columns(start, len)?.f_transpose(0, 1)?.f_contiguous()?.f_to_kind(kind)?)
    }
}

/// What a slot is to do in a round.
struct Row<'a> {
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

impl<'a> Row<'a> {
    /// A slot that does nothing: it attends to its first key, and its characters are given.
    fn new(row: &'a mut [f32], size: usize) -> Row<'a> {
        let (patch, row) = row.split_at_mut(size);
        let (uniform, row) = row.split_at_mut(size);
        let (fixed, row) = row.split_at_mut(size);
        let (settings, row) = row.split_at_mut(Settings::COLUMNS as usize);
        settings.copy_from_slice(&Sampling::GREEDY.packed());
        let (position, reads) = row.split_at_mut(1);
        Row { patch, position: &mut position[0], reads: &mut reads[0], uniform, fixed, settings }
    }
}

/// A recording for each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A patch a slot, attending to so many keys at most.
    Patch(usize),
    /// All characters of the next patches.
    Characters,
}

/// The memory of a round, and recordings of what is done in it.
pub(super) struct Together {
    memory: Memory,
    device: Device,
    graphs: Vec<(Part, Graph)>,
}

impl Together {
    fn new(slots: i64, a: &Architecture, device: Device) -> Result<Together> {
        Ok(Together { memory: Memory::new(slots, a, device)?, device, graphs: Vec::new() })
    }

    /// Does `work`, perhaps twice, by its recording where there is one. Returns whether it was replayed.
    fn run(&mut self, trial: &mut Trial, part: Part, work: impl Fn(&Memory) -> Result<()>) -> Result<bool> {
        if !trial.records(self.device) {
            work(&self.memory)?;
            return Ok(false);
        }
        if let Some((_, graph)) = self.graphs.iter().find(|(known, _)| *known == part) {
            graph.replay()?;
            return Ok(true);
        }
        match Graph::record(self.device, self.graphs.first().map(|(_, graph)| graph), || work(&self.memory)) {
            Ok(graph) => self.graphs.push((part, graph)),
            Err(error) if out_of_memory(&error) => return Err(error),
            Err(error) => {
                trial.failure = Some(error.to_string());
                work(&self.memory)?;
            }
        }
        Ok(false)
    }
}

impl Network {
    /// All characters of the next patches, those given included.
    pub(super) fn round_together(
        &mut self,
        readings: Vec<Reading>,
        ready: &[Ready],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<Vec<u8>>> {
        let size = self.architecture.patch_size as usize;
        let (single, longer): (Vec<Reading>, Vec<Reading>) =
            readings.into_iter().partition(|reading| reading.patches(size) == 1);
        self.read(&longer)?;
        if single.is_empty() && ready.is_empty() {
            return Ok(Vec::new());
        }
        let _span = Span::new("write");
        let mut together = match self.together.take() {
            Some(together) => together,
            None => Together::new(self.features.size()[0], &self.architecture, self.device)?,
        };
        let mut trial = std::mem::take(&mut self.trial);
        let started = Instant::now();
        let written = together.memory.fill(&single, &longer, ready).and_then(|()| {
            let mut replayed = self.read_together(&mut together, &mut trial, &single)?;
            if !ready.is_empty() {
                replayed &= self.write_together(&mut together, &mut trial, ready)?;
            }
            meanwhile();
            let written = Vec::<u8>::try_from(together.memory.written.f_to_device(Device::Cpu)?.f_view([-1])?)?;
            if longer.is_empty() && !single.is_empty() && !ready.is_empty() {
                trial.note(replayed, started.elapsed().as_secs_f64());
            }
            Ok(ready.iter().map(|ready| written[ready.slot * size..][..size].to_vec()).collect())
        });
        self.trial = trial;
        self.together = Some(together).filter(|_| written.is_ok());
        written
    }

    /// The newest patch of every slot that has one. Returns whether it was replayed.
    fn read_together(&mut self, together: &mut Together, trial: &mut Trial, single: &[Reading]) -> Result<bool> {
        let Some(longest) = single.iter().map(|reading| reading.start + 1).max() else { return Ok(true) };
        let most = self.architecture.patch_length as usize;
        // Our own kernel reads as far as each slot needs: one recording for all.
        let own = kernels::is_own(Kernel::AppendAttend, self.device, self.kind);
        let keys = if own { most } else { longest.next_multiple_of(KEYS).min(most) };
        together.run(trial, Part::Patch(keys), |memory| self.patch_step(memory, keys as i64))
    }

    /// The characters of every slot's next patch. Returns whether it was replayed.
    fn write_together(&mut self, together: &mut Together, trial: &mut Trial, ready: &[Ready]) -> Result<bool> {
        if !self.is_checked() {
            let slots: Vec<i64> = ready.iter().map(|ready| ready.slot as i64).collect();
            let slots = Tensor::from_slice(&slots).f_to_device(self.device)?;
            self.check(self.first(&self.features.f_index_select(0, &slots)?)?)?;
        }
        together.run(trial, Part::Characters, |memory| self.characters(memory))
    }

    /// Reads a patch a slot at its position, and keeps the features of those slots that have one.
    fn patch_step(&self, memory: &Memory, keys: i64) -> Result<()> {
        let size = memory.patch_size;
        let behind = 3 * size + Settings::COLUMNS as usize;
        let patches = memory.columns(0, size)?.f_to_kind(Kind::Int64)?;
        let positions = memory.columns(behind, 1)?.f_to_kind(Kind::Int64)?;
        let kind = (self.kind, self.device);
        let beyond = Tensor::f_arange(keys, (Kind::Int64, self.device))?.f_gt_tensor(&positions)?;
        let mask = Tensor::f_zeros(beyond.size(), kind)?.f_masked_fill_(&beyond, f64::NEG_INFINITY)?;
        let mask = mask.f_view([-1, 1, 1, keys])?;
        let positions = positions.f_view([-1])?;
        let at = At::Positions { rows: &memory.slots, positions: &positions, mask: &mask };
        let mut x = Residual::new(self.patches(&patches, &positions)?);
        for (layer, cache) in self.patch.layers.iter().zip(&self.patch_caches) {
            layer.forward(&mut x, self.kind, cache, &at, keys)?;
        }
        let features = x.norm(&self.patch.ln_f, Kind::Float)?;
        let reads = memory.columns(behind + 1, 1)?.f_ne(0)?;
        self.features.shallow_clone().f_copy_(&features.f_where_self(&reads, &self.features)?)?;
        Ok(())
    }

    /// Writes all characters of a patch a slot.
    fn characters(&self, memory: &Memory) -> Result<()> {
        let size = memory.patch_size;
        let uniform = memory.turned(size, size, Kind::Float)?;
        let fixed = memory.turned(2 * size, size, Kind::Int64)?;
        let settings = Settings::new(&memory.columns(3 * size, Settings::COLUMNS as usize)?)?;
        let mut x = self.first(&self.features)?;
        let mut written: Vec<Tensor> = Vec::with_capacity(size);
        for place in 0..size as i64 {
            if let Some(character) = written.last() {
                x = self.next(character, place - 1)?;
            }
            let (uniform, fixed) = (uniform.f_select(0, place)?, fixed.f_select(0, place)?);
            written.push(draw(&self.logits(x.shallow_clone(), place)?, &uniform, &settings, &fixed)?);
        }
        memory.written.shallow_clone().f_copy_(&Tensor::f_stack(&written, 1)?)?;
        Ok(())
    }
}
