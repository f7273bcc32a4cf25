//! libtorch's profiler (Kineto): which operators run, for how long, and what a card does for them.
use crate::Result;
use crate::ffi::{Ptr, c_string, check, device_index, te_profile_begin, te_profile_end, te_span_begin, te_span_end};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use tch::Device;

/// A recording of what this thread and its backward passes run. Dropped without [`Profile::save`] it leaves nothing.
#[derive(Debug)]
pub struct Profile {
    running: bool,
    device: Device,
    thread: PhantomData<*const ()>,
}

impl Profile {
    /// Begins one, when the device has done what it was given before. There is one at a time in a process.
    pub fn begin(device: Device) -> Result<Profile> {
        // SAFETY: a plain number.
        check(unsafe { te_profile_begin(device_index(device)) })?;
        Ok(Profile { running: true, device, thread: PhantomData })
    }

    /// Ends it and writes it as a Chrome trace (JSON), for `chrome://tracing` and ui.perfetto.dev.
    pub fn save(mut self, path: &Path) -> Result<()> {
        self.running = false;
        let text = path.to_str().ok_or_else(|| error!(Argument, "{}: the name is not UTF-8", path.display()))?;
        let text = c_string(text)?;
        // SAFETY: a string that lives through the call.
        check(unsafe { te_profile_end(device_index(self.device), text.as_ptr()) })?;
        // Kineto logs that it cannot write a file, and does not return an error.
        match path.is_file() {
            true => Ok(()),
            false => Err(error!(Internal, "{}: the trace cannot be written", path.display())),
        }
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if self.running {
            // SAFETY: without a path nothing is written. There is no one to report a failure to.
            let _ = check(unsafe { te_profile_end(device_index(self.device), std::ptr::null()) });
        }
    }
}

/// A profile of some turns of a loop, behind the first few, which allocate memory and choose kernels.
#[derive(Debug)]
pub struct ProfiledTurns {
    turns: u64,
    path: PathBuf,
    device: Device,
    seen: u64,
    running: Option<Profile>,
}

impl ProfiledTurns {
    /// Turns before the profile begins.
    pub const WARM_UP: u64 = 3;

    /// A profile of so many turns, for a file.
    pub fn new(turns: u64, path: PathBuf, device: Device) -> ProfiledTurns {
        ProfiledTurns { turns, path, device, seen: 0, running: None }
    }

    /// A turn is over, perhaps the last that there is. Gives the file when it is written.
    pub fn turn(&mut self, last: bool) -> Result<Option<&Path>> {
        self.seen += 1;
        if last || self.seen == Self::WARM_UP + self.turns {
            return match self.running.take() {
                Some(profile) => profile.save(&self.path).map(|()| Some(self.path.as_path())),
                None => Ok(None),
            };
        }
        if self.seen == Self::WARM_UP && self.turns > 0 {
            self.running = Some(Profile::begin(self.device)?);
        }
        Ok(None)
    }
}

/// A name in the trace for what this thread runs until it is dropped. Costs next to nothing where none is recorded.
#[derive(Debug)]
pub struct Span {
    guard: Ptr,
}

impl Span {
    /// Begins here.
    pub fn new(name: &str) -> Span {
        let mut guard = std::ptr::null_mut();
        if let Ok(name) = c_string(name) {
            // SAFETY: a string and an out-pointer. A span that cannot be made is left out of the trace.
            let _ = check(unsafe { te_span_begin(name.as_ptr(), &mut guard) });
        }
        Span { guard }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: the shim made it, or it is null, which the shim deletes as nothing.
        unsafe { te_span_end(self.guard) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn a_profile_has_the_operators_and_the_spans_that_ran_in_it() {
        let folder = std::env::temp_dir().join(format!("profile-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("trace.json");
        let a = Tensor::ones([8, 8], (Kind::Float, Device::Cpu));
        let _unseen = Span::new("before");
        let profile = Profile::begin(Device::Cpu).unwrap();
        {
            let _span = Span::new("a product");
            let _ = a.matmul(&a);
        }
        profile.save(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("traceEvents") && text.contains("aten::mm") && text.contains("a product"), "{text}");
        assert!(!text.contains("\"before\""));
        drop(Profile::begin(Device::Cpu).unwrap());
        let error =
            Profile::begin(Device::Cpu).unwrap().save(Path::new("/nowhere/at/all.json")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.json"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
