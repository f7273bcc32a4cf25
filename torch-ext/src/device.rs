//! Devices and memory.
use crate::ffi::{Ptr, check, device_type, te_cuda_part, te_device_memory, te_empty_cache, te_load_cuda};
use crate::store::c_string;
use crate::{Error, Result};
use std::ffi::{CStr, c_int};
use std::path::Path;
use tch::Device;

/// Memory of one device in bytes, as its caching allocator and its driver see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Free on the device, other processes counted.
    pub free: u64,
    /// In all.
    pub total: u64,
    /// Held by this process's tensors.
    pub allocated: u64,
    /// The most that this process's tensors held.
    pub peak: u64,
}

/// Memory of this process in bytes, as Linux counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident now (`VmRSS`).
    pub resident: u64,
    /// Resident at most (`VmHWM`).
    pub peak: u64,
}

/// Loads libtorch's CUDA half where there is an NVIDIA device, so that one binary serves machines with and
/// without one. Returns whether CUDA can be used; an error says why a device that is there cannot.
pub fn load_cuda() -> Result<bool> {
    if tch::Cuda::is_available() {
        return Ok(true);
    }
    if !Path::new("/dev/nvidiactl").exists() && !Path::new("/dev/nvidia0").exists() {
        return Ok(false);
    }
    // SAFETY: loading runs the library's initialisers, as linking it would.
    check(unsafe { te_load_cuda() })?;
    Ok(tch::Cuda::is_available())
}

/// What is called so in the CUDA part, the library that `build.rs` makes where libtorch has CUDA: where it was built, or
/// beside the program.
pub(crate) fn cuda_part(name: &CStr) -> Result<Ptr> {
    let built = Path::new(env!("TORCH_EXT_CUDA"));
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("libtorch_ext_cuda.so"));
    let library = [Some(built.to_owned()), beside()].into_iter().flatten().find(|path| path.is_file());
    let library = library.ok_or_else(|| {
        let how = "build it with the CUDA set of libtorch (scripts/setup --cuda)";
        Error(format!("this program was built without its CUDA part: {how}"))
    })?;
    let library = c_string(&library.to_string_lossy())?;
    let mut found = std::ptr::null_mut();
    // SAFETY: two strings and an out-pointer; loading runs the library's initialisers, as linking it would.
    check(unsafe { te_cuda_part(library.as_ptr(), name.as_ptr(), &mut found) })?;
    Ok(found)
}

/// Memory of a device that has an allocator of its own (CUDA).
pub fn device_memory(device: Device) -> Result<DeviceMemory> {
    let index = match device {
        Device::Cuda(index) => index as i32,
        other => return Err(Error(format!("{other:?} has no memory of its own: see process_memory"))),
    };
    let mut memory = DeviceMemory { free: 0, total: 0, allocated: 0, peak: 0 };
    // SAFETY: four valid out-pointers; the device is checked by the shim.
    check(unsafe {
        te_device_memory(
            device_type(device),
            index,
            &mut memory.free,
            &mut memory.total,
            &mut memory.allocated,
            &mut memory.peak,
        )
    })?;
    Ok(memory)
}

/// Gives the unused part of the device's cache back to the driver. Nothing to do on a CPU.
pub fn empty_cache(device: Device) -> Result<()> {
    match device {
        // SAFETY: a plain number.
        Device::Cuda(_) => check(unsafe { te_empty_cache(device_type(device)) }),
        _ => Ok(()),
    }
}

/// Lets this process keep memory that it frees: activations of the same sizes come and go in every step of a
/// training, and giving them back to the kernel each time costs a tenth of it. Peak memory stays the same.
pub fn keep_freed_memory() {
    // glibc's numbers: M_TRIM_THRESHOLD -1, M_MMAP_THRESHOLD -3; the latter has a maximum.
    const SETTINGS: [(c_int, c_int); 2] = [(-1, c_int::MAX), (-3, 32 << 20)];
    for (setting, value) in SETTINGS {
        // SAFETY: changes the allocator's thresholds and touches no memory.
        unsafe { mallopt(setting, value) };
    }
}

unsafe extern "C" {
    fn mallopt(setting: c_int, value: c_int) -> c_int;
}

/// Memory of this process, from `/proc/self/status`.
pub fn process_memory() -> Result<ProcessMemory> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| Error(format!("/proc/self/status: {e}")))?;
    let field = |name: &str| {
        let kib =
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.map(|kib: u64| kib * 1024).ok_or_else(|| Error(format!("/proc/self/status has no {name}")))
    };
    Ok(ProcessMemory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn memory_follows_a_large_tensor() {
        let before = process_memory().unwrap();
        let tensor = Tensor::ones([64 << 20], (Kind::Uint8, Device::Cpu));
        let after = process_memory().unwrap();
        assert!(after.resident >= before.resident + (48 << 20), "{before:?} {after:?}");
        assert!(after.peak >= after.resident);
        drop(tensor);
    }

    #[test]
    fn a_cpu_has_no_device_memory() {
        assert!(device_memory(Device::Cpu).is_err());
        assert!(empty_cache(Device::Cpu).is_ok());
    }
}
