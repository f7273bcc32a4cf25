//! What the network is: GPT-2 blocks, NotaGen, patches, weights files and generation.

pub mod architecture;
mod batch;
mod error;
pub mod features;
pub mod generate;
mod gpt2;
pub mod m3;
mod notagen;
pub mod number;
pub mod patches;
pub mod prompts;
pub mod pth;
pub mod sampling;
mod sequences;
pub mod weights;

pub use architecture::{Architecture, VOCABULARY};
pub use batch::Batch;
pub use error::{Error, Result};
pub use gpt2::{Checkpointing, Mode};
pub use notagen::{Loss, NotaGen, UNUSED_PARAMETER};
