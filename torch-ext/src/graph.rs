//! Device work recorded once and run again with a single launch (CUDA graphs).
use crate::device::cuda_part;
use crate::ffi::{Ptr, check};
use crate::{Error, Result};
use std::ffi::{c_char, c_int};
use tch::{Device, Tensor};

/// `te_graphs` of the CUDA part.
#[repr(C)]
struct Api {
    enter: extern "C" fn(c_int, Ptr, *mut Ptr) -> *mut c_char,
    begin: extern "C" fn(Ptr, Ptr) -> *mut c_char,
    end: extern "C" fn(Ptr, c_int) -> *mut c_char,
    replay: extern "C" fn(Ptr) -> *mut c_char,
    drop: extern "C" fn(Ptr),
}

/// A recording of what a closure had a CUDA device do.
///
/// It runs again on the same memory: what is to differ is written into the tensors that the closure read, and the results
/// are in those that it wrote, all of them made before it.
pub struct Graph {
    graph: Ptr,
    api: &'static Api,
    /// What it reads and writes.
    _uses: Vec<Tensor>,
}

// SAFETY: a recording belongs to its device, not to a thread; it is replayed and dropped by its one owner.
unsafe impl Send for Graph {}

impl Graph {
    /// Runs `work` once for real and once to be recorded. It must not wait for the device, and must do the same each
    /// time. `uses` are all tensors made before that it reads or writes: the recording holds their memory, and keeps them
    /// alive. A recording that `shares` the memory of another one is replayed after it only.
    ///
    /// # Errors
    /// The device is no CUDA device, the program was built without CUDA, or `work` fails or cannot be recorded. The
    /// device goes on as before.
    pub fn record<E: From<Error>>(
        device: Device,
        shares: Option<&Graph>,
        uses: Vec<Tensor>,
        mut work: impl FnMut() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let Device::Cuda(index) = device else {
            return Err(error!(Argument, "{device:?} records no work: only CUDA devices do").into());
        };
        // SAFETY: the name belongs to a constant of that layout, and the library stays loaded.
        let api = unsafe { &*cuda_part(c"te_graphs")?.cast::<Api>() };
        let shares = shares.map_or(std::ptr::null_mut(), |graph| graph.graph);
        let mut graph = std::ptr::null_mut();
        check((api.enter)(index as c_int, shares, &mut graph))?;
        let recording = Graph { graph, api, _uses: uses };
        let mut begun = false;
        let mut record = || {
            // Libraries allocate and choose kernels in the first run, which cannot be recorded.
            work()?;
            check((api.begin)(graph, shares))?;
            begun = true;
            work()
        };
        let recorded = record();
        let ended = check((api.end)(graph, begun.into()));
        recorded?;
        ended?;
        Ok(recording)
    }

    /// Runs the recorded work, after all that the device was given before.
    pub fn replay(&self) -> Result<()> {
        check((self.api.replay)(self.graph))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        (self.api.drop)(self.graph);
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_records_nothing_and_says_so() {
        let error = Graph::record::<Error>(Device::Cpu, None, Vec::new(), || unreachable!()).unwrap_err().to_string();
        assert!(error.contains("only CUDA devices"), "{error}");
    }
}
