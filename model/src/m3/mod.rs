//! M3, the music encoder of CLaMP 2 (Wu et al. 2024, arXiv 2410.13267, section 3.2), after `code/utils.py` of github
//! sanderwood/clamp2: bars as patches of 64 characters, a BERT over them, and in training a small GPT-2 that writes
//! the characters of masked patches.
//!
//! [`Patchiliser`] reads ABC and MTF, [`MusicEncoder`] turns patches into features, [`M3`] learns.

mod architecture;
mod batch;
mod bert;
mod encoder;
mod mask;
mod mtf;
mod network;
mod patch_runs;
mod patchiliser;
mod segments;
mod text;

pub use architecture::M3Architecture;
pub(crate) use architecture::{TIED, TIED_TO};
pub use batch::M3Batch;
pub use encoder::MusicEncoder;
pub use mask::{Masked, Masking, mask};
pub use network::{M3, UNUSED_PARAMETERS};
pub use patchiliser::Patchiliser;
pub use text::{feature_text, training_text};
