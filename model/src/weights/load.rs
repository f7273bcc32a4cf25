//! A network from a file.

use std::path::Path;

use tch::Device;

use super::{Checkpoint, StateDict, infer};
use crate::NotaGen;

/// The NotaGen in a file, on `device`, in float32. One tensor at a time goes from the file to the network.
pub fn load(path: &Path, device: Device) -> crate::Result<NotaGen> {
    let checkpoint = Checkpoint::open(path)?;
    let model = NotaGen::new(&infer::architecture(checkpoint.state())?, device, 0)?;
    load_into(&model, checkpoint.state())?;
    Ok(model)
}

/// Copies weights into a network of the same sizes.
pub fn load_into(model: &NotaGen, state: &StateDict) -> crate::Result<()> {
    model.load::<crate::Error>(|name| Ok(state.load(name, Device::Cpu)?))
}
