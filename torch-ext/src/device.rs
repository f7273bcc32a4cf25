//! Devices and memory.
use crate::ffi::{
    Ptr, c_string, check, device_index, device_type, te_card, te_cuda_part, te_cuda_runtime_version, te_device_memory,
    te_driver_state, te_empty_cache, te_find_driver, te_fused_attention, te_idle, te_library_version, te_load_cuda,
};
use crate::{Error, Result};
use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
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

/// A card as the NVIDIA driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// In all, in bytes.
    pub memory: u64,
    /// What its processors can do, such as (9, 0).
    pub capability: (u32, u32),
}

/// Which of its fused kinds of attention libtorch may use. Where none fits, it computes the parts one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FusedAttention {
    /// Flash attention, of a card or of a CPU.
    pub flash: bool,
    /// The memory-efficient kind, of a card.
    pub efficient: bool,
    /// cuDNN's, of a card.
    pub cudnn: bool,
}

/// Whether CUDA can be used. An error says why a card that is there cannot.
///
/// Where a driver is installed, the CUDA half of libtorch was loaded before `main` (the shim does it): libtorch decides
/// when it is first asked about CUDA, even by `tch::manual_seed`, and never again.
pub fn load_cuda() -> Result<bool> {
    load_cuda_of(Path::new("/dev"))
}

/// As `load_cuda`, with the folder of the device files. The driver is asked first: what is wrong with it or with its cards
/// does not depend on how this program was built.
fn load_cuda_of(dev: &Path) -> Result<bool> {
    let files = device_files(dev);
    let hidden = std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|devices| matches!(devices.trim(), "" | "-1"));
    let driver = find_driver();
    // WSL2 has another device file, for cards of all makers: there the driver alone tells that it is one of NVIDIA's.
    if hidden || (files.is_empty() && (driver.is_err() || !dev.join("dxg").exists())) {
        return Ok(false);
    }
    driver.map_err(no_driver)?;
    let (version, status) = driver_state()?;
    if status != 0 {
        return no_card(&files, status);
    }
    let card = card(0)?;
    // Without the CUDA part, libtorch would find the card, and the first NCCL group or CUDA graph would fail.
    cuda_part_file()?;
    load_cuda_library()?;
    if tch::Cuda::is_available() {
        return Ok(true);
    }
    let runtime = cuda_runtime_version()?;
    if version / 1000 < runtime / 1000 {
        let (has, needs) = (cuda_name(version), cuda_name(runtime));
        let why = format!("it has CUDA {has}, and libtorch needs {needs} (install a newer driver)");
        return Err(error!(Device, "the NVIDIA driver is too old: {why}"));
    }
    Err(error!(Device, "libtorch cannot use the card of the NVIDIA driver, {} (nvidia-smi shows its state)", card.name))
}

/// The device called `cpu`, `cuda` (the first card), or `auto` (the first card where there is one).
///
/// # Errors
/// The card that is asked for is not there; one that is there cannot be used; there is no such device.
pub fn device_named(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" | "cuda" if load_cuda()? => Ok(Device::Cuda(0)),
        "auto" => Ok(Device::Cpu),
        "cuda" => Err(error!(Device, "device cuda: this machine has no NVIDIA card that the program may use")),
        other => Err(error!(Argument, "there is no device {other}: auto, cpu or cuda")),
    }
}

/// Finds the NVIDIA driver's library, `libcuda.so.1`.
pub fn find_driver() -> Result<()> {
    // SAFETY: no arguments; loading runs the library's initialisers, as linking it would.
    check(unsafe { te_find_driver() })
}

fn no_driver(error: Error) -> Error {
    error!(
        Device,
        "the NVIDIA driver's library is missing: {error} (install the driver; a container takes it from its host)"
    )
}

/// Asks the NVIDIA driver for a card, which needs nothing of libtorch's CUDA half. The index counts as CUDA does: only the
/// cards that `CUDA_VISIBLE_DEVICES` leaves.
pub fn card(index: usize) -> Result<Card> {
    find_driver().map_err(no_driver)?;
    let failed = |error| error!(Device, "the NVIDIA driver does not tell about card {index}: {error}");
    let number = c_int::try_from(index).map_err(|_| failed(error!(Device, "there are not so many")))?;
    let mut name = [0u8; 256];
    let (mut memory, mut major, mut minor) = (0, 0, 0);
    // SAFETY: room for a string and its length, without the last byte, which stays 0; three valid out-pointers.
    let asked = check(unsafe {
        te_card(number, name.as_mut_ptr().cast(), name.len() as c_int - 1, &mut memory, &mut major, &mut minor)
    });
    asked.map_err(failed)?;
    let name = CStr::from_bytes_until_nul(&name).map_err(|error| failed(error!(Device, "{}", error.to_string())))?;
    let capability = (major.unsigned_abs(), minor.unsigned_abs());
    Ok(Card { name: name.to_string_lossy().into_owned(), memory, capability })
}

/// Loads libtorch's CUDA half, with or without a card.
///
/// # Errors
/// It cannot be loaded, or libtorch was asked about CUDA before and stays without it.
pub fn load_cuda_library() -> Result<()> {
    // SAFETY: no arguments; loading runs the library's initialisers, as linking it would.
    check(unsafe { te_load_cuda() }).map_err(|error| {
        error!(Device, "libtorch's CUDA library cannot be loaded: {error} (scripts/setup --cuda installs the CUDA set)")
    })?;
    cuda_runtime_version().map(drop).map_err(|_| {
        let why = "libtorch was asked about CUDA before, and stays without it until the program is started again";
        error!(Device, "libtorch's CUDA library was loaded too late: {why}")
    })
}

/// The version of the CUDA runtime that libtorch uses, as 1000 * major + 10 * minor. An error where libtorch has no CUDA.
pub fn cuda_runtime_version() -> Result<i64> {
    let mut version = 0;
    // SAFETY: a valid out-pointer.
    check(unsafe { te_cuda_runtime_version(&mut version) })?;
    Ok(version)
}

/// The newest CUDA that the NVIDIA driver knows, such as `13.0`.
pub fn driver_version() -> Result<String> {
    find_driver().map_err(no_driver)?;
    Ok(cuda_name(driver_state()?.0))
}

/// The name of a version of CUDA, `13.0` for 13000.
pub fn cuda_name(version: i64) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// What a library of NCCL or cuDNN says of itself, such as `2.28.9`. It is loaded for that.
pub fn library_version(library: &Path) -> Result<String> {
    let library = c_string(&library.to_string_lossy())?;
    let mut version = 0;
    // SAFETY: a string and a valid out-pointer; loading runs the library's initialisers, as linking it would.
    check(unsafe { te_library_version(library.as_ptr(), &mut version) })?;
    Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
}

/// The kinds that libtorch may use now. cuDNN's is turned off when CUDA is loaded.
pub fn fused_attention() -> FusedAttention {
    let (mut flash, mut efficient, mut cudnn) = (0, 0, 0);
    // SAFETY: three valid out-pointers. What cannot be asked is off.
    let _ = check(unsafe { te_fused_attention(&mut flash, &mut efficient, &mut cudnn) });
    FusedAttention { flash: flash != 0, efficient: efficient != 0, cudnn: cudnn != 0 }
}

/// The device files of the NVIDIA driver and its cards: `nvidiactl`, `nvidia0`, `nvidia1`, …
fn device_files(dev: &Path) -> Vec<PathBuf> {
    let is_device = |name: &str| {
        let rest = name.strip_prefix("nvidia");
        rest.is_some_and(|rest| rest == "ctl" || (!rest.is_empty() && rest.bytes().all(|c| c.is_ascii_digit())))
    };
    let entries = std::fs::read_dir(dev).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_device)).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The newest CUDA that the driver knows, as 1000 * major + 10 * minor, and what it answers when it is started.
fn driver_state() -> Result<(i64, c_int)> {
    let (mut version, mut status) = (0, 0);
    // SAFETY: two valid out-pointers.
    check(unsafe { te_driver_state(&mut version, &mut status) })?;
    Ok((version.into(), status))
}

/// Why the driver, which answers `status`, offers no card. A cluster may hide a card by its file alone, so each is tried.
fn no_card(files: &[PathBuf], status: c_int) -> Result<bool> {
    const NO_DEVICE: c_int = 100;
    for file in files {
        if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(file) {
            let way_out = "was this job or container given the card?";
            return Err(error!(Device, "{} cannot be opened: {error} ({way_out})", file.display()));
        }
    }
    if status != NO_DEVICE {
        return Err(error!(
            Device,
            "the NVIDIA driver does not start: error {status} of cuInit (nvidia-smi may say more)"
        ));
    }
    // `nvidiactl` is there without a card, too; the numbered ones are the cards.
    match files.iter().find(|file| file.to_string_lossy().ends_with(|last: char| last.is_ascii_digit())) {
        None => Ok(false),
        Some(file) => Err(error!(
            Device,
            "the NVIDIA driver finds no card although {} is there (CUDA_VISIBLE_DEVICES? a container without its GPUs?)",
            file.display()
        )),
    }
}

/// The CUDA part, the library that `build.rs` makes where libtorch has CUDA: where it was built, or beside the program.
fn cuda_part_file() -> Result<PathBuf> {
    let built = Path::new(env!("TORCH_EXT_CUDA"));
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("libtorch_ext_cuda.so"));
    let library = [Some(built.to_owned()), beside()].into_iter().flatten().find(|path| path.is_file());
    library.ok_or_else(|| {
        let how = "build it with the CUDA set of libtorch (scripts/setup --cuda)";
        error!(Device, "this program was built without its CUDA part: {how}")
    })
}

/// What is called so in the CUDA part.
pub(crate) fn cuda_part(name: &CStr) -> Result<Ptr> {
    let library = c_string(&cuda_part_file()?.to_string_lossy())?;
    let mut found = std::ptr::null_mut();
    // SAFETY: two strings and an out-pointer; loading runs the library's initialisers, as linking it would.
    check(unsafe { te_cuda_part(library.as_ptr(), name.as_ptr(), &mut found) })?;
    Ok(found)
}

/// Memory of a device that has an allocator of its own (CUDA).
pub fn device_memory(device: Device) -> Result<DeviceMemory> {
    let index = match device {
        Device::Cuda(index) => index as i32,
        other => return Err(error!(Argument, "{other:?} has no memory of its own: see process_memory")),
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

/// Whether a device has done all that this thread has given it. The CPU has when it is asked.
pub fn is_idle(device: Device) -> bool {
    if !device.is_cuda() {
        return true;
    }
    let mut idle = 1;
    // SAFETY: plain numbers and an out-pointer. What fails here fails again, and is reported, in the next call that computes.
    let _ = check(unsafe { te_idle(device_type(device), device_index(device), &mut idle) });
    idle != 0
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
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|e| error!(Internal, "/proc/self/status: {e}"))?;
    let field = |name: &str| {
        let kib =
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.map(|kib: u64| kib * 1024).ok_or_else(|| error!(Internal, "/proc/self/status has no {name}"))
    };
    Ok(ProcessMemory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod causes;

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
    fn device_files_are_those_of_the_driver_and_of_every_card() {
        let folder = std::env::temp_dir().join(format!("device-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia", "null"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = device_files(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, ["nvidia0", "nvidia12", "nvidiactl"].map(|name| folder.join(name)));
    }

    #[test]
    fn a_card_that_is_not_there_is_an_error() {
        for index in [1_000_000, usize::MAX] {
            let error = card(index).unwrap_err().to_string();
            assert!(error.contains("the NVIDIA driver"), "{error}");
        }
    }

    #[test]
    fn a_library_that_is_not_there_or_tells_no_version_is_an_error() {
        let error = library_version(Path::new("/nowhere/libnccl.so.2")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/libnccl.so.2"), "{error}");
        let error = library_version(Path::new("libc.so.6")).unwrap_err().to_string();
        assert_eq!(error, "libc.so.6 tells no version");
    }

    #[test]
    fn attention_is_fused_on_a_cpu() {
        assert!(fused_attention().flash);
    }

    #[test]
    fn a_device_has_one_of_three_names() {
        assert_eq!(device_named("cpu").unwrap(), Device::Cpu);
        assert_eq!(device_named("tpu").unwrap_err().to_string(), "there is no device tpu: auto, cpu or cuda");
        match device_named("cuda") {
            Ok(device) => assert_eq!(device, Device::Cuda(0)),
            Err(error) => assert!(!matches!(device_named("auto"), Ok(Device::Cuda(_))), "{error}"),
        }
    }

    #[test]
    fn a_cpu_has_no_device_memory() {
        assert!(device_memory(Device::Cpu).is_err());
        assert!(empty_cache(Device::Cpu).is_ok());
    }
}
