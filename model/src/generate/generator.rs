//! A network ready to write music, and how many pieces its machine's memory holds.
use super::network::{InferenceNetwork, bytes_per_slot, slots_in};
use super::writer::PatchWriter;
use crate::patches::Patchiliser;
use crate::{Architecture, Error, NotaGen, Result};
use tch::{Device, Kind};

/// More pieces at once gain nothing.
pub(super) const MOST_SLOTS_CPU: usize = 64;
const MOST_SLOTS_GPU: usize = 1024;
/// Above it the number of slots is a multiple of it: products of matrices are made of such blocks.
const SLOTS_ROUNDED_TO: u64 = 64;

/// A network ready to write music.
pub struct Generator {
    pub(super) writer: PatchWriter,
    pub(super) patchiliser: Patchiliser,
    warnings: Vec<String>,
}

impl Generator {
    /// A copy of the model with its weights in `kind`: `Float`, `BFloat16` or `Half`.
    pub fn new(model: &NotaGen, kind: Kind) -> Result<Generator> {
        if !matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half) {
            return Err(Error::Invalid(format!("music is written in Float, BFloat16 or Half, not in {kind:?}")));
        }
        torch_ext::keep_freed_memory();
        let patchiliser = Patchiliser::new(model.architecture().patch_size as usize)?;
        let warnings = torch_ext::kernels::ready(model.device(), kind)?;
        Ok(Generator { writer: PatchWriter::new(InferenceNetwork::new(model, kind)?), patchiliser, warnings })
    }

    /// What a person should know about the kernels that are used.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The model's sizes.
    pub fn architecture(&self) -> &Architecture {
        &self.writer.network.architecture
    }

    /// Bytes that each piece at once takes beside the weights, at most.
    pub fn bytes_per_piece(&self) -> u64 {
        bytes_per_slot(self.architecture(), self.writer.network.kind)
    }

    /// Pieces at once that the free memory holds.
    pub fn batch_size_for_memory(&self) -> Result<usize> {
        let (free, most) = match self.writer.network.device {
            Device::Cpu => (available_memory()?, MOST_SLOTS_CPU),
            device => (torch_ext::device_memory(device)?.free, MOST_SLOTS_GPU),
        };
        let mut fitting = slots_in(free / 10 * 8, self.architecture(), self.writer.network.kind);
        if fitting > SLOTS_ROUNDED_TO {
            fitting -= fitting % SLOTS_ROUNDED_TO;
        }
        Ok(usize::try_from(fitting).unwrap_or(most).clamp(1, most))
    }
}

/// Bytes that the system can still give out (`MemAvailable`).
fn available_memory() -> Result<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").map_err(|e| Error::Invalid(format!("/proc/meminfo: {e}")))?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::Invalid("/proc/meminfo has no MemAvailable".to_owned()))
}
