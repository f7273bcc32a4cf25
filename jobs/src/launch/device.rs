//! The device that a run computes on.
use crate::{
    common::failure::{Failure, Result},
    recipe::Device,
};
use std::sync::Once;

/// How many CUDA devices a recipe's choice leaves to use: none on a CPU.
pub fn count(choice: Device) -> usize {
    match choice {
        Device::Cpu => 0,
        _ if matches!(torch_ext::load_cuda(), Ok(true)) => usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
        _ => 0,
    }
}

/// As `choose`, for a process that is not alone on its machine.
///
/// # Errors
/// As of `choose`; more processes than devices.
pub fn choose_for(choice: Device, local_rank: usize) -> Result<tch::Device> {
    match (choose(choice)?, count(choice)) {
        (tch::Device::Cuda(_), devices) if local_rank < devices => Ok(tch::Device::Cuda(local_rank)),
        // Slurm may show each process its own device alone.
        (tch::Device::Cuda(_), 1) => Ok(tch::Device::Cuda(0)),
        (tch::Device::Cuda(_), devices) => Err(Failure::usage(format!(
            "process {local_rank} on this machine, which has {devices} CUDA devices: there is none for it"
        ))
        .hint("start a process a device")),
        (device, _) => Ok(device),
    }
}

/// The device that a recipe's or a command's choice means on this machine.
///
/// With `auto`, a card that cannot be used is warned about, and the CPU computes.
///
/// # Errors
/// CUDA is asked for and is not there or cannot be used.
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
        (Err(error), Device::Auto) => {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                eprintln!("warning: the CUDA device cannot be used: {error}; the CPU computes (device: auto)");
            });
            Ok(tch::Device::Cpu)
        }
        (Err(error), _) => Err(Failure::failed(format!("the CUDA device cannot be used: {error}"))
            .hint("`notagen-train doctor` says what is missing; device: cpu does without")),
    }
}
