//! Files of weights: what is in them, in and out, whatever PyTorch or this wrote.
//!
//! [`inspect`] says what a file holds, [`Checkpoint::open`] gives its weights, optimizer and
//! schedule, [`save_checkpoint`] writes what the original's training scripts load, and [`export`]
//! turns one file into another. Sizes are read from the tensors' shapes, and the file's name is
//! checked against them.

mod checkpoint;
mod error;
mod export;
mod infer;
mod infer_m3;
mod inspect;
mod kind;
mod load;
mod name;
mod optimizer;
mod safetensors;
mod save;
mod schedule;
mod state_dict;

use std::path::Path;

pub use checkpoint::Checkpoint;
pub use error::Error;
pub use export::{ExportOptions, Format, export};
pub use infer::architecture;
pub use infer_m3::m3_architecture;
pub use inspect::{Inspection, inspect};
pub use load::{load, load_m3, usable};
pub use name::{FileName, check_name, dpo_file_name, file_name, m3_file_name, python_float};
pub use optimizer::{Moments, OptimizerState, ParamGroup};
pub use save::{CheckpointParts, save_checkpoint};
pub use schedule::LrSchedule;
pub use state_dict::StateDict;

/// The weights in a `.pth` or safetensors file, to be read by name.
pub fn load_state(path: &Path) -> Result<StateDict, Error> {
    Ok(Checkpoint::open(path)?.into_state())
}

/// The optimizer's state in a `.pth` file, which has to be there; its moments are still in the file.
/// Where the file holds a NotaGen or an M3, their shapes are those of its parameters.
pub fn optimizer_state(path: &Path) -> Result<OptimizerState, Error> {
    let missing = || Error::MissingEntry { path: path.to_path_buf(), key: "optimizer" };
    Checkpoint::open(path)?.optimizer()?.ok_or_else(missing)
}
