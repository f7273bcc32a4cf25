//! What libtorch has and `tch` does not bind, behind a safe interface: the one crate with unsafe code.
//!
//! Unless said otherwise tensors may be on any device; lists of tensors must be of one device and kind.
#![allow(unsafe_code)]

#[macro_use]
mod error;

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

pub use allocations::Allocations;
pub use attention::{attend_to_sequences_on_cpu, attends_to_sequences, attention_of_sequences, gather_rows};
pub use autocast::Autocast;
pub use bytes::filled;
pub use calls::{Calls, count_calls, launched};
pub use checkpoint::checkpoint;
pub use device::{
    Card, DeviceMemory, FusedAttention, ProcessMemory, card, cuda_name, cuda_runtime_version, device_memory,
    device_named, driver_version, empty_cache, find_driver, fused_attention, is_idle, keep_freed_memory,
    library_version, load_cuda, load_cuda_library, process_memory,
};
pub use error::{Error, ErrorKind, Result};
pub use ffi::Bucket;
pub use gelu::gelu;
pub use graph::Graph;
pub use linear::PackedLinear;
pub use onednn::OneDnnLinear;
pub use optim::{AdamWState, AdamWStep, clip_by_norm, fused_adamw, total_norm, unscale, update_scale, zero};
pub use pack::{pack, receive, send, upload};
pub use profile::{Profile, ProfiledTurns, Span};
pub use ranks::{ProcessGroup, Reduce};
pub use reducer::{Reducer, ReducerOptions};
pub use store::{JoinOptions, StoreServer, World};
