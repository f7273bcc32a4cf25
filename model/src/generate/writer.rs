//! One round of writing, in the way that suits the device.
use super::attention::UnreadPatches;
use super::batched::{BatchedDecode, CudaGraphStats};
use super::network::{InferenceNetwork, Ready};
use crate::Result;
use crate::patches::EOS;
use tch::Device;
use torch_ext::Span;

/// How a round is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodePath {
    /// Slot after slot, each with its own length: no wasted reading (CPU).
    Each,
    /// All slots at once behind a mask, in CUDA graphs where they can be recorded: few launches (GPU).
    Batched,
}

/// A network and how its rounds are run.
pub(super) struct PatchWriter {
    pub(super) network: InferenceNetwork,
    pub(super) path: DecodePath,
    batched: BatchedDecode,
}

impl PatchWriter {
    pub(super) fn new(network: InferenceNetwork) -> PatchWriter {
        let path = if network.device == Device::Cpu { DecodePath::Each } else { DecodePath::Batched };
        PatchWriter { network, path, batched: BatchedDecode::default() }
    }

    /// Makes room for so many pieces at once; what the caches held is lost.
    pub(super) fn resize(&mut self, slots: i64) -> Result<()> {
        self.release();
        self.network.resize(slots)
    }

    /// Gives the memory of caches and graphs back.
    pub(super) fn release(&mut self) {
        self.batched.release();
        self.network.release();
    }

    /// What CUDA graphs have gained so far, on a GPU.
    pub(super) fn graph_stats(&self) -> Option<CudaGraphStats> {
        self.batched.stats(self.network.device)
    }

    /// Reads new patches of some slots and writes the next patch of others, each slot at most once in either: the
    /// characters behind those given, up to and with the first end mark, in the order of `ready`.
    ///
    /// `meanwhile` runs on the host while a GPU writes. A CPU does not call it.
    pub(super) fn round(
        &mut self,
        readings: Vec<UnreadPatches>,
        ready: &[Ready],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<Vec<u8>>> {
        let mut written = match self.path {
            DecodePath::Each => {
                self.network.read(&readings)?;
                let _span = Span::new("write");
                if ready.is_empty() { Vec::new() } else { self.network.write_each(ready)? }
            }
            DecodePath::Batched => self.batched.round(&mut self.network, readings, ready, meanwhile)?,
        };
        for (ready, written) in ready.iter().zip(&mut written) {
            written.drain(..ready.given.len());
            if let Some(end) = written.iter().position(|&c| c == EOS) {
                written.truncate(end + 1);
            }
        }
        Ok(written)
    }
}
