//! A network from a file.

use std::path::Path;

use tch::Device;

use super::{Checkpoint, infer};
use crate::NotaGen;

/// The NotaGen in a file, on `device`, in float32. One tensor at a time goes from the file to the network.
pub fn load(path: &Path, device: Device) -> crate::Result<NotaGen> {
    let checkpoint = Checkpoint::open(path)?;
    let model = NotaGen::new(&infer::architecture(checkpoint.state())?, device, 0)?;
    model.load::<crate::Error>(|name| Ok(checkpoint.state().load(name, Device::Cpu)?))?;
    Ok(model)
}
