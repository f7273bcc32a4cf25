//! Copies to a device that the host does not wait for.
use crate::Result;
use crate::ffi::{check, ptr, te_upload};
use tch::Tensor;

/// Copies `from`, on the CPU, into `into`, of the same kind and shape on any device. To a GPU it goes by way of pinned memory,
/// in the order of what the device is given; `from` may be changed at once.
///
/// # Errors
/// Kinds or shapes differ, or memory runs out.
pub fn upload(from: &Tensor, into: &Tensor) -> Result<()> {
    // SAFETY: two live tensors, which the shim compares.
    check(unsafe { te_upload(ptr(from), ptr(into)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn what_fits_is_copied_and_the_rest_refused() {
        let into = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        let from = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]);
        assert!(upload(&from, &into).unwrap_err().to_string().contains("upload of"));
        upload(&from.view([2, 2]), &into).unwrap();
        assert_eq!(into, from.view([2, 2]));
    }
}
