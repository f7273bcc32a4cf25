//! What the network is: GPT-2 blocks, NotaGen, patches, weights files and generation.

mod architecture;
mod batch;
mod error;
mod gpt2;
mod notagen;
pub mod patches;

pub use architecture::Architecture;
pub use batch::Batch;
pub use error::{Error, Result};
pub use gpt2::{Checkpointing, Group, Mode};
pub use notagen::{Loss, NotaGen, VOCABULARY};
