//! The device that a run computes on.
use crate::{
    failure::{Failure, Result},
    recipe::Device,
};

/// The device that a recipe's or a command's choice means on this machine.
///
/// # Errors
/// CUDA is asked for and is not there, or a device that is there cannot be used.
pub fn choose(choice: Device) -> Result<tch::Device> {
    if choice == Device::Cpu {
        return Ok(tch::Device::Cpu);
    }
    match (torch_ext::load_cuda(), choice) {
        (Ok(true), _) => Ok(tch::Device::Cuda(0)),
        (Ok(false), Device::Auto) => Ok(tch::Device::Cpu),
        (Ok(false), _) => {
            Err(Failure::failed("device cuda: this machine has no NVIDIA device").hint("set device: cpu or auto"))
        }
        (Err(error), _) => Err(Failure::failed(format!("the CUDA device cannot be used: {error}"))
            .hint("`notagen-train doctor` says what is missing; device: cpu does without")),
    }
}
