//! Autocast with a device and a dtype (`torch.autocast(device_type, dtype)`).
use crate::Result;
use crate::ffi::{check, device_type, float_type, te_autocast_get, te_autocast_set};
use std::ffi::c_int;
use std::marker::PhantomData;
use tch::{Device, Kind};

/// A region in which matrix products run in `dtype`. It ends when it is dropped, and restores the state before it.
///
/// Autocast is a state of the thread, so the guard cannot leave it.
pub struct Autocast {
    device: c_int,
    enabled: c_int,
    dtype: c_int,
    thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Starts the region; `dtype` is `BFloat16` or `Half`, and `Float` means no autocast.
    pub fn new(device: Device, dtype: Kind) -> Result<Autocast> {
        let wrong = || error!(Argument, "autocast runs in Half or BFloat16, not in {dtype:?}");
        let number = float_type(dtype).ok_or_else(wrong)?;
        let mut before = Autocast { device: device_type(device), enabled: 0, dtype: 0, thread: PhantomData };
        // SAFETY: both out-pointers are valid for the call.
        check(unsafe { te_autocast_get(before.device, &mut before.enabled, &mut before.dtype) })?;
        let on = c_int::from(dtype != Kind::Float);
        let number = if on == 1 { number } else { before.dtype };
        // SAFETY: plain numbers; the shim checks them.
        if let Err(error) = check(unsafe { te_autocast_set(before.device, on, number, 1) }) {
            std::mem::forget(before);
            return Err(error);
        }
        Ok(before)
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: restores the values read from the same thread. There is no one to report a failure to.
        let _ = check(unsafe { te_autocast_set(self.device, self.enabled, self.dtype, 0) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn product() -> Kind {
        let a = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        a.matmul(&a).kind()
    }

    #[test]
    fn products_follow_the_region_and_nesting() {
        assert_eq!(product(), Kind::Float);
        {
            let _bf16 = Autocast::new(Device::Cpu, Kind::BFloat16).unwrap();
            assert_eq!(product(), Kind::BFloat16);
            {
                let _fp16 = Autocast::new(Device::Cpu, Kind::Half).unwrap();
                assert_eq!(product(), Kind::Half);
            }
            {
                let _off = Autocast::new(Device::Cpu, Kind::Float).unwrap();
                assert_eq!(product(), Kind::Float);
            }
            assert_eq!(product(), Kind::BFloat16);
        }
        assert_eq!(product(), Kind::Float);
        assert!(Autocast::new(Device::Cpu, Kind::Int64).is_err());
    }
}
