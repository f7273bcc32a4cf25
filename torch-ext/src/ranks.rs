//! Collectives between ranks: c10d's process group, Gloo for tensors on the CPU and NCCL for those on GPUs.
use crate::device::cuda_part;
use crate::ffi::{
    Ptr, check, ptr, ptrs, te_group_all_gather, te_group_all_reduce, te_group_barrier, te_group_broadcast,
    te_group_fail, te_group_free, te_group_new,
};
use crate::store::{World, c_string};
use crate::{Error, Result};
use std::ffi::{CString, c_char, c_int};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tch::{Device, Tensor};

/// How an all-reduce puts the ranks' tensors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Adds them.
    Sum,
    /// Takes the largest, element by element.
    Max,
}

/// The ranks that work together. Every rank calls the same collectives in the same order.
///
/// A peer that is dead, hangs or does not come is an error within the world's time-out, which names the rank where that
/// can be known; the group is of no use any more after one.
pub struct Group {
    group: Ptr,
    world: Arc<World>,
}

// SAFETY: c10d's process groups may be used from any thread; the order of the calls is the caller's concern.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    /// Connects every rank with every other. `device` is where this rank computes; for a CUDA device NCCL is there too.
    pub fn new(world: &Arc<World>, device: Device) -> Result<Group> {
        let nccl = match device {
            Device::Cuda(_) => cuda_part(c"te_make_nccl")?,
            _ => std::ptr::null_mut(),
        };
        let host = c_string(&own_address(world.meeting())?)?;
        let names = std::env::var("GLOO_SOCKET_IFNAME").ok();
        let interface = names.as_deref().and_then(|names| names.split(',').next()).filter(|name| !name.is_empty());
        let interface = interface.map(c_string).transpose()?;
        let null = std::ptr::null::<c_char>();
        let of = |text: &Option<CString>| text.as_ref().map_or(null, |text| text.as_ptr());
        let (rank, size) = (world.rank() as c_int, world.size() as c_int);
        let mut group = std::ptr::null_mut();
        // Groups of one world do not share keys: c10d's groups count their own operations.
        let timeout = world.timeout().as_millis() as i64;
        // SAFETY: a live store, strings that live through the call, a function of the CUDA part or NULL, an out-pointer.
        let made = check(unsafe {
            te_group_new(
                world.store(),
                world.next_group() as c_int,
                rank,
                size,
                timeout,
                host.as_ptr(),
                of(&interface),
                nccl,
                &mut group,
            )
        });
        made.map_err(|Error(e)| Error(format!("the ranks cannot connect: {}; {e}", world.blame())))?;
        Ok(Group { group, world: world.clone() })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.world.rank()
    }

    /// Ranks in all.
    pub fn size(&self) -> usize {
        self.world.size()
    }

    /// Puts the tensors of all ranks together, in place. All have one shape and kind.
    pub fn all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<()> {
        // SAFETY: a live group and a live tensor.
        self.collective("all-reduce", |group| unsafe { te_group_all_reduce(group, ptr(tensor), reduce as c_int) })
    }

    /// Overwrites the tensors with those of rank `root`.
    pub fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<()> {
        let list = ptrs(tensors);
        // SAFETY: a live group and live tensors.
        self.collective("broadcast", |group| unsafe {
            te_group_broadcast(group, list.as_ptr(), list.len(), root as c_int)
        })
    }

    /// The tensors of all ranks, by rank. All have one shape and kind.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let tensor = tensor.f_contiguous().map_err(|e| Error(e.to_string()))?;
        let out: Vec<Tensor> = (0..self.size()).map(|_| tensor.zeros_like()).collect();
        let list = ptrs(&out);
        // SAFETY: a live group and live tensors of one shape.
        self.collective("all-gather", |group| unsafe {
            te_group_all_gather(group, ptr(&tensor), list.as_ptr(), list.len())
        })?;
        Ok(out)
    }

    /// Waits for all ranks.
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: a live group.
        self.collective("barrier", |group| unsafe { te_group_barrier(group) })
    }

    /// Waits until rank 0 is here too, as long as it lives: for work of rank 0 alone, which may take longer than the
    /// time-out of a collective.
    pub fn wait_for_first(&self) -> Result<()> {
        let key = format!("here/{}", self.world.begun.fetch_add(1, Ordering::Relaxed));
        match self.rank() {
            0 => self.world.set(&key, ""),
            _ => self.world.wait(&key, 0).map(drop),
        }
    }

    /// Counts a collective, and tells whose fault its failure is.
    pub(crate) fn collective(&self, name: &str, call: impl FnOnce(Ptr) -> *mut c_char) -> Result<()> {
        self.world.begun.fetch_add(1, Ordering::Relaxed);
        check(call(self.group)).map_err(|Error(error)| self.explain(name, &error))
    }

    /// A failure while ranks worked together, with the rank that is behind it where that can be known. The group is of
    /// no use any more.
    pub fn explain(&self, what: &str, error: &str) -> Error {
        // SAFETY: a live group.
        unsafe { te_group_fail(self.group) };
        let error = error.lines().next().unwrap_or_default();
        Error(format!("{} ({what}: {error})", self.world.blame()))
    }

    pub(crate) fn pointer(&self) -> Ptr {
        self.group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `te_group_new`, and given back once.
        unsafe { te_group_free(self.group) }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.world.fmt(f)
    }
}

/// The address of this machine on the way to where the ranks meet.
fn own_address(meeting: (&str, u16)) -> Result<String> {
    let find = || -> std::io::Result<String> {
        let way = |from: &str| UdpSocket::bind(from).and_then(|socket| socket.connect(meeting).map(|()| socket));
        let socket = way("0.0.0.0:0").or_else(|_| way("[::]:0"))?;
        Ok(socket.local_addr()?.ip().to_string())
    };
    find().map_err(|error| Error(format!("no way to {}:{}: {error}", meeting.0, meeting.1)))
}
