//! Gradients summed over ranks while the backward pass runs: c10d's `Reducer`, the engine of DistributedDataParallel.
use crate::Result;
use crate::ffi::{
    Bucket, Ptr, check, float_type, new_tensor, ptr, ptrs, te_reducer_backward, te_reducer_buckets, te_reducer_free,
    te_reducer_new, te_reducer_nothing, te_reducer_trace,
};
use crate::ranks::ProcessGroup;
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

/// Sums the gradients of some parameters over the ranks of a group.
///
/// [`Reducer::backward`] exchanges the gradients, those added up by earlier passes included. Other backward passes add up
/// locally (DDP's `no_sync`). The gradients are views into the buckets: clear them with zeros, not by dropping them.
pub struct Reducer {
    reducer: Ptr,
    params: Vec<Tensor>,
    group: Arc<ProcessGroup>,
}

impl Reducer {
    /// Parameters in the order in which the forward pass uses them; the gradients of all are zero afterwards.
    pub fn new(group: &Arc<ProcessGroup>, params: &[Tensor], options: ReducerOptions) -> Result<Reducer> {
        let wrong = |kind| error!(Argument, "gradients travel as Half or BFloat16, not as {kind:?}");
        let compress = match options.compress {
            None | Some(Kind::Float) => -1,
            Some(kind) => float_type(kind).ok_or_else(|| wrong(kind))?,
        };
        if params.is_empty() {
            return Err(error!(Argument, "no parameters to train"));
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
                compress,
                &mut reducer,
            )
        })?;
        let params = params.iter().map(Tensor::shallow_clone).collect();
        Ok(Reducer { reducer, params, group: group.clone() })
    }

    /// Runs the backward pass of a loss, exchanges the gradients meanwhile, and waits until each is the sum over the ranks.
    ///
    /// # Errors
    /// Of kind [`crate::ErrorKind::Peer`] where the exchange failed, and of others where the backward pass of this rank did.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        let mut peers = 0;
        self.group.exchange("exchange of gradients", |group| {
            // SAFETY: a live reducer and its group, a live tensor and an out-pointer.
            let message = unsafe { te_reducer_backward(self.reducer, group, ptr(loss), &mut peers) };
            (message, peers != 0)
        })
    }

    /// A loss with gradients of zero, for a rank that has nothing to add.
    pub fn nothing(&self) -> Result<Tensor> {
        let list = ptrs(&self.params);
        // SAFETY: live tensors, an out-pointer.
        new_tensor(|out| unsafe { te_reducer_nothing(list.as_ptr(), list.len(), out) })
    }

    /// What the last exchange did, bucket by bucket, in the order in which they became ready.
    pub fn trace(&self) -> Result<Vec<Bucket>> {
        // SAFETY: a live reducer.
        let mut trace = vec![Bucket::default(); unsafe { te_reducer_buckets(self.reducer) }];
        let mut found = 0;
        // SAFETY: a live reducer, room for as many buckets as it is told, and an out-pointer.
        check(unsafe { te_reducer_trace(self.reducer, trace.as_mut_ptr(), trace.len(), &mut found) })?;
        trace.truncate(found);
        Ok(trace)
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `te_reducer_new`, given back once; its group is alive.
        unsafe { te_reducer_free(self.reducer, *self.group.group()) }
    }
}
