//! What libtorch has and `tch` does not bind, behind a safe interface: the one crate with unsafe code.
//!
//! Unless said otherwise tensors may be on any device; lists of tensors must be of one device and kind.
#![allow(unsafe_code)]

mod allocations;
mod attention;
mod autocast;
mod bytes;
mod calls;
mod checkpoint;
mod device;
mod ffi;
mod gelu;
mod graph;
pub mod kernels;
mod linear;
mod onednn;
mod optim;
mod pack;
mod profile;
mod ranks;
mod reducer;
mod store;
mod upload;

pub use allocations::Allocations;
pub use attention::{attend_to_sequences_on_cpu, attends_to_sequences, attention_of_sequences, gather_rows};
pub use autocast::Autocast;
pub use bytes::filled;
pub use calls::{Calls, count_calls, launched};
pub use checkpoint::checkpoint;
pub use device::{
    Attention, Card, DeviceMemory, ProcessMemory, attention, card, cuda_name, cuda_runtime_version, device_memory,
    device_named, driver_version, empty_cache, find_driver, is_idle, keep_freed_memory, library_version, load_cuda,
    load_cuda_library, process_memory,
};
pub use gelu::gelu;
pub use graph::Graph;
pub use linear::Linear;
pub use onednn::ManyRows;
pub use optim::{AdamWState, AdamWStep, clip_by_norm, fused_adamw, total_norm, unscale, update_scale, zero};
pub use pack::{pack, receive, send};
pub use profile::{Profile, ProfiledTurns, Span};
pub use ranks::{Group, Reduce};
pub use reducer::{Bucket, Reducer, ReducerOptions};
pub use store::{Join, Server, World};
pub use upload::upload;

/// A failure inside libtorch, or arguments that do not belong together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

/// The result of a call into libtorch.
pub type Result<T> = std::result::Result<T, Error>;

impl From<tch::TchError> for Error {
    /// The first line: libtorch appends pages of C++ frames.
    fn from(error: tch::TchError) -> Error {
        Error(error.to_string().lines().next().unwrap_or("libtorch failed without a message").to_owned())
    }
}
