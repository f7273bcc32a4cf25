//! A network from a file.

use std::path::Path;

use tch::Device;

use super::{Checkpoint, Error, infer, m3_architecture};
use crate::NotaGen;
use crate::m3::M3;

/// The NotaGen in a file, on `device`, in float32. One tensor at a time goes from the file to the network.
pub fn load(path: &Path, device: Device) -> crate::Result<NotaGen> {
    let checkpoint = Checkpoint::open(path)?;
    let model = NotaGen::new(&infer::architecture(checkpoint.state())?, device, 0)?;
    model.load::<crate::Error>(|name| Ok(checkpoint.state().load(name, Device::Cpu)?))?;
    Ok(model)
}

/// The M3 in a file, on `device`, in float32, decoder included. One tensor at a time goes from the file to the network.
pub fn load_m3(path: &Path, device: Device) -> crate::Result<M3> {
    let checkpoint = Checkpoint::open(path)?;
    let (architecture, _) = m3_architecture(checkpoint.state())?;
    if architecture.token_layers == 0 {
        let (path, kind) = (path.to_path_buf(), "CLaMP 2".into());
        return Err(Error::NotMusic { path, kind, wanted: "M3, which has a decoder" }.into());
    }
    let model = M3::new(&architecture, device, 0)?;
    model.load::<crate::Error>(|name| Ok(checkpoint.state().load(name, Device::Cpu)?))?;
    Ok(model)
}
