//! The device that a run computes on.
use crate::common::failure::{Failure, Result};
use crate::common::progress;
use crate::plan::{Plan, estimate, products};
use crate::recipe::{Device, Native};
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

/// What the device of a process multiplies at full speed.
///
/// # Errors
/// As of `choose_for`; a card that does not say what it is.
pub fn native(choice: Device, local_rank: usize) -> Result<Native> {
    match choose_for(choice, local_rank)? {
        tch::Device::Cuda(index) => {
            let card = torch_ext::card(index).map_err(|error| Failure::failed(error.to_string()))?;
            Ok(Native::of_card(&card.name, card.capability))
        }
        _ => Ok(Native::of_this_processor()),
    }
}

/// The same for a plan, which may be made on a machine that will not compute.
pub fn native_or_unknown(choice: Device) -> Native {
    native(choice, 0).unwrap_or_else(|_| Native::unknown())
}

/// What it costs that a plan's stages compute in a format in which this machine is slow: one line, if any does.
pub fn slow_format(plan: &Plan) -> Option<String> {
    let (dtype, stages) = plan.slow_formats()?;
    let best = plan.native.best();
    let cost = match count(plan.recipe.device) {
        0 => {
            let times = products::of_processor(best) / products::of_processor(dtype);
            // Flags do not say all: AVX-512 FP16 multiplies fp16 as well.
            if times < 1.0 {
                return None;
            }
            format!(": a matrix product takes {times:.1} times as long as in {best}")
        }
        _ => String::new(),
    };
    let (why, stages) = (&plan.native.why, stages.join(", "));
    Some(format!("{dtype} is slow here{cost} ({why}); precision: auto would be {best} in {stages}"))
}

/// How long the stages to run take on this machine's processor, for people; nothing on a card.
pub fn time_estimate(plan: &Plan) -> Option<String> {
    if count(plan.recipe.device) > 0 {
        return None;
    }
    let (seconds, unknown) = estimate::total(plan);
    let more = match unknown {
        0 => String::new(),
        unknown => format!(", and {unknown} stages whose inputs are not there yet"),
    };
    (seconds >= 1.0).then(|| format!("about {} on this processor{more}", progress::duration(seconds)))
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
