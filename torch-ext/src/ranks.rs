//! Collectives between ranks: c10d's process group, Gloo for tensors on the CPU and NCCL for those on GPUs.
use crate::device::cuda_part;
use crate::ffi::{
    Ptr, c_string, check, ptr, ptrs, te_group_all_gather, te_group_all_reduce, te_group_barrier, te_group_broadcast,
    te_group_free, te_group_new,
};
use crate::store::World;
use crate::{Error, ErrorKind, Result};
use std::ffi::{CString, c_char, c_int};
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Device, Tensor};

/// How an all-reduce combines the ranks' tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Adds them.
    Sum,
    /// Takes the largest, element by element.
    Max,
}

/// The ranks that work together. Every rank calls the same collectives in the same order.
///
/// A peer that is dead, hangs or does not come is an error of kind [`ErrorKind::Peer`] within the world's time-out, which names
/// the rank where that can be known. After an error the group can no longer be used.
pub struct ProcessGroup {
    /// c10d counts a group's operations without a lock.
    group: Mutex<Ptr>,
    world: Arc<World>,
}

// SAFETY: c10d's process groups belong to no thread.
unsafe impl Send for ProcessGroup {}
// SAFETY: the group is reached through its lock alone.
unsafe impl Sync for ProcessGroup {}

impl ProcessGroup {
    /// Connects every rank with every other. `device` is where this rank computes; for a CUDA device NCCL is there too.
    pub fn new(world: &Arc<World>, device: Device) -> Result<ProcessGroup> {
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
        let store = world.store();
        // SAFETY: a live store, strings that live through the call, a function of the CUDA part or NULL, an out-pointer.
        let made = check(unsafe {
            te_group_new(
                store.pointer(),
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
        drop(store);
        made.map_err(|error| match error.kind() {
            ErrorKind::Peer | ErrorKind::Internal => {
                error!(Peer, "the ranks cannot connect: {}; {error}", world.blame())
            }
            _ => error,
        })?;
        Ok(ProcessGroup { group: Mutex::new(group), world: world.clone() })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.world.rank()
    }

    /// Ranks in all.
    pub fn size(&self) -> usize {
        self.world.size()
    }

    /// Combines the tensors of all ranks, in place. All have one shape and kind.
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
        let tensor = tensor.f_contiguous()?;
        let out = (0..self.size()).map(|_| tensor.f_zeros_like()).collect::<std::result::Result<Vec<_>, _>>()?;
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

    /// Runs a collective, and says whose fault its failure is.
    pub(crate) fn collective(&self, name: &str, call: impl FnOnce(Ptr) -> *mut c_char) -> Result<()> {
        self.exchange(name, |group| (call(group), true))
    }

    /// As [`ProcessGroup::collective`]; `call` also says whether a failure may be the peers'.
    pub(crate) fn exchange(&self, name: &str, call: impl FnOnce(Ptr) -> (*mut c_char, bool)) -> Result<()> {
        self.world.begun.fetch_add(1, Ordering::Relaxed);
        let (message, may_be_peers) = call(*self.group());
        check(message).map_err(|error| match error.kind() {
            ErrorKind::Peer => self.blame(name, &error),
            ErrorKind::Internal if may_be_peers => self.blame(name, &error),
            _ => error,
        })
    }

    fn blame(&self, name: &str, error: &Error) -> Error {
        error!(Peer, "{} ({name}: {error})", self.world.blame())
    }

    /// Locks the group.
    pub(crate) fn group(&self) -> MutexGuard<'_, Ptr> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `te_group_new`, and given back once.
        unsafe { te_group_free(*self.group()) }
    }
}

impl std::fmt::Debug for ProcessGroup {
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
    find().map_err(|error| error!(Peer, "no way to {}:{}: {error}", meeting.0, meeting.1))
}
