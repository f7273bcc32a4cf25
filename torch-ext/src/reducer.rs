//! Gradients summed over ranks while the backward pass runs: c10d's `Reducer`, the engine of DistributedDataParallel.
use crate::ffi::{
    Ptr, check, owned, ptrs, te_reducer_begin, te_reducer_buckets, te_reducer_failed, te_reducer_finish,
    te_reducer_free, te_reducer_new, te_reducer_nothing, te_reducer_trace,
};
use crate::ranks::Group;
use crate::{Error, Result};
use std::ffi::c_int;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// How gradients are exchanged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReducerOptions {
    /// Bytes of a bucket at most.
    pub bucket: i64,
    /// Bytes of the bucket that is ready first: a small one starts the exchange early.
    pub first_bucket: i64,
    /// The kind in which gradients travel, `Half` or `BFloat16`; as they are if not given.
    pub compress: Option<Kind>,
}

impl Default for ReducerOptions {
    /// PyTorch's.
    fn default() -> ReducerOptions {
        ReducerOptions { bucket: 25 << 20, first_bucket: 1 << 20, compress: None }
    }
}

/// What was done with one bucket of gradients.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bucket {
    /// Bytes that travelled from each rank.
    pub bytes: i64,
    /// Seconds from the beginning of the backward pass until its gradients were there and it was sent.
    pub ready: f64,
    /// Seconds until the sum over the ranks was there.
    pub reduced: f64,
}

/// Sums the gradients of some parameters over the ranks of a group.
///
/// After [`Reducer::begin`] the next backward pass exchanges the gradients, those added up by earlier passes included;
/// [`Reducer::finish`] waits for them. Passes without `begin` add up locally (DDP's `no_sync`). The gradients are views
/// into the buckets: clear them with zeros, not by dropping them.
pub struct Reducer {
    reducer: Ptr,
    params: Vec<Tensor>,
    group: Arc<Group>,
}

impl Reducer {
    /// Parameters in the order in which the forward pass uses them; the gradients of all are zero afterwards.
    pub fn new(group: &Arc<Group>, params: &[Tensor], options: ReducerOptions) -> Result<Reducer> {
        let compress = match options.compress {
            None | Some(Kind::Float) => -1,
            Some(Kind::Half) => 5,
            Some(Kind::BFloat16) => 15,
            Some(other) => return Err(Error(format!("gradients travel as Half or BFloat16, not as {other:?}"))),
        };
        if params.is_empty() {
            return Err(Error("no parameters to train".to_owned()));
        }
        let (list, mut reducer) = (ptrs(params), std::ptr::null_mut());
        // SAFETY: a live group, live tensors, an out-pointer.
        group.collective("exchange of gradients", |group| unsafe {
            te_reducer_new(
                group,
                list.as_ptr(),
                list.len(),
                options.first_bucket,
                options.bucket,
                compress as c_int,
                &mut reducer,
            )
        })?;
        let params = params.iter().map(Tensor::shallow_clone).collect();
        Ok(Reducer { reducer, params, group: group.clone() })
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The next backward pass exchanges the gradients.
    pub fn begin(&self) -> Result<()> {
        // SAFETY: a live reducer and its group.
        self.group.collective("exchange of gradients", |group| unsafe { te_reducer_begin(self.reducer, group) })
    }

    /// Waits until every gradient is the sum over the ranks.
    pub fn finish(&self) -> Result<()> {
        // SAFETY: a live reducer and its group.
        self.group.collective("exchange of gradients", |group| unsafe { te_reducer_finish(self.reducer, group) })
    }

    /// Whether the exchange failed, and not what the backward pass computes.
    pub fn has_failed(&self) -> bool {
        // SAFETY: a live reducer.
        unsafe { te_reducer_failed(self.reducer) != 0 }
    }

    /// A loss with gradients of zero, for a rank that has nothing to add.
    pub fn nothing(&self) -> Result<Tensor> {
        let (list, mut out) = (ptrs(&self.params), std::ptr::null_mut());
        // SAFETY: live tensors, an out-pointer.
        check(unsafe { te_reducer_nothing(list.as_ptr(), list.len(), &mut out) })?;
        Ok(owned(out))
    }

    /// What the last exchange did, bucket by bucket, in the order in which they became ready.
    pub fn trace(&self) -> Vec<Bucket> {
        // SAFETY: a live reducer.
        let mut trace = vec![Bucket::default(); unsafe { te_reducer_buckets(self.reducer) }];
        // SAFETY: a live reducer, and room for as many buckets as it is told.
        let found = unsafe { te_reducer_trace(self.reducer, trace.as_mut_ptr(), trace.len()) };
        trace.truncate(found);
        trace
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `te_reducer_new`, given back once; its group is alive.
        unsafe { te_reducer_free(self.reducer, self.group.pointer()) }
    }
}
