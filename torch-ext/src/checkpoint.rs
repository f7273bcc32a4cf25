//! Activation checkpointing (`torch.utils.checkpoint`, reentrant form).
use crate::Result;
use crate::ffi::{Ptr, new_tensor, ptr, te_checkpoint};
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;

type Segment = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send>;

/// Runs `segment` without keeping its activations, and again in the backward pass.
///
/// The gradients of the parameters that the segment uses are accumulated as usual. Random numbers drawn
/// inside must not depend on the generator's state before it: seed it at the start of the segment.
/// The segment may run on another thread (autograd has one for each GPU), so regions such as
/// [`crate::Autocast`] are entered inside it.
pub fn checkpoint<F>(input: &Tensor, segment: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + 'static,
{
    let segment: Segment = Box::new(segment);
    let data = Box::into_raw(Box::new(segment));
    // SAFETY: the shim owns `data` from here on and calls `release` on it exactly once, after the last `run`.
    new_tensor(|out| unsafe { te_checkpoint(ptr(input), run, data.cast(), release, out) })
}

/// Gives NULL where the segment fails, and puts its error into `message`, of `size` bytes.
extern "C" fn run(data: Ptr, input: Ptr, message: *mut c_char, size: usize) -> Ptr {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `data` is the box of `checkpoint`, alive until `release`; the input is the caller's, so it is
        // cloned (a reference count) and not taken over.
        let (segment, input) = unsafe { (&*data.cast::<Segment>(), Tensor::clone_from_ptr(input.cast())) };
        segment(&input)
    }));
    let error = match outcome {
        Ok(Ok(mut tensor)) => {
            let pointer = tensor.as_mut_ptr();
            std::mem::forget(tensor); // the shim deletes it
            return pointer.cast();
        }
        Ok(Err(error)) => error,
        Err(_) => error!(Internal, "a checkpointed segment panicked"),
    };
    let mut text = error.to_shim();
    text.truncate(size.saturating_sub(1));
    text.push(0);
    // SAFETY: the shim gives room for `size` bytes, at least one.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), message.cast(), text.len()) };
    std::ptr::null_mut()
}

extern "C" fn release(data: Ptr) {
    // SAFETY: the pointer is that of `Box::into_raw` above and is released once.
    drop(unsafe { Box::from_raw(data.cast::<Segment>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use tch::{Device, Kind};

    #[test]
    fn gradients_equal_those_without_checkpointing() {
        tch::manual_seed(1);
        let options = (Kind::Double, Device::Cpu);
        let weight = Tensor::randn([3, 3], options).set_requires_grad(true);
        let input = Tensor::randn([2, 3], options).set_requires_grad(true);
        let f = |w: Tensor| move |x: &Tensor| Ok(x.f_matmul(&w)?.f_tanh()?);
        f(weight.shallow_clone())(&input).unwrap().sum(None).backward();
        let plain = (weight.grad().copy(), input.grad().copy());
        let _ = weight.grad().zero_();
        let _ = input.grad().zero_();
        checkpoint(&input, f(weight.shallow_clone())).unwrap().sum(None).backward();
        assert!(weight.grad().allclose(&plain.0, 1e-12, 1e-12, false));
        assert!(input.grad().allclose(&plain.1, 1e-12, 1e-12, false));
    }

    #[test]
    fn a_failing_segment_is_an_error() {
        let input = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let error = checkpoint(&input, |x| Ok(x.f_matmul(x)?)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("cannot be multiplied"), "{error}");
    }

    /// It was an error without a reason, on the way forward and, above all, when a segment was computed again.
    #[test]
    fn memory_that_runs_out_in_a_segment_is_told_as_such() {
        let input = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let room = |times: Arc<AtomicI64>, fails_in: i64| {
            move |x: &Tensor| {
                // More than any address space.
                let size = if times.fetch_add(1, Ordering::Relaxed) == fails_in { 1 << 50 } else { 1 };
                Ok(x.f_add(&Tensor::f_zeros([size, 1, 1], (Kind::Float, Device::Cpu))?)?)
            }
        };
        let forward = checkpoint(&input, room(Arc::default(), 0)).unwrap_err();
        let backward = checkpoint(&input, room(Arc::default(), 1)).unwrap().sum(None).f_backward().unwrap_err();
        for error in [forward, Error::from(backward)] {
            assert!(error.is_out_of_memory(), "{error}");
        }
    }
}
