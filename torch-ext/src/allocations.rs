//! Counts the bytes of tensors in the CPU's memory. A process's resident memory has much else in it.
use crate::Result;
use crate::ffi::{check, te_allocations, te_count_allocations};

/// Counts from its creation to the end of the process. Earlier tensors do not count.
#[derive(Debug)]
pub struct Allocations(());

impl Allocations {
    /// Begins to count.
    pub fn count() -> Result<Allocations> {
        // SAFETY: installs an allocator that lives as long as the process.
        check(unsafe { te_count_allocations() })?;
        Ok(Allocations(()))
    }

    /// Bytes in use now, and the most since the last call.
    pub fn read(&self) -> (u64, u64) {
        let (mut now, mut most) = (0, 0);
        // SAFETY: two valid out-pointers.
        unsafe { te_allocations(&mut now, &mut most) };
        (now.max(0) as u64, most.max(0) as u64)
    }
}
