//! A network from a file.

use std::path::Path;

use tch::Device;

use super::{Checkpoint, Error, StateDict, check_name, infer, m3_architecture};
use crate::m3::M3;
use crate::{Architecture, NotaGen};

/// The sizes of a NotaGen that is to be used: beyond [`infer::architecture`], the file's name agrees with them, and the
/// output layer is the embedding.
pub fn usable(state: &StateDict) -> Result<Architecture, Error> {
    let architecture = infer::architecture(state)?;
    check_name(state.path(), &architecture)?;
    state.check_ties()?;
    Ok(architecture)
}

/// The NotaGen in a file, on `device`, in float32. One tensor at a time goes from the file to the network.
pub fn load(path: &Path, device: Device) -> crate::Result<NotaGen> {
    let checkpoint = Checkpoint::open(path)?;
    let model = NotaGen::blank(&usable(checkpoint.state())?, device)?;
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
    checkpoint.state().check_ties()?;
    let model = M3::blank(&architecture, device)?;
    model.load::<crate::Error>(|name| Ok(checkpoint.state().load(name, Device::Cpu)?))?;
    Ok(model)
}
