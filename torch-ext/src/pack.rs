//! Tensors that travel together between the CPU's memory and a device's, without a wait for each.
use crate::Result;
use crate::ffi::{Ptr, check, device_index, device_type, owned, ptr, ptrs, te_pack, te_receive, te_send};
use tch::{Device, Tensor};

/// Copies `from`, on the CPU, into `into`, of the same kind and shape on any device. To a GPU it goes by way of pinned memory,
/// in the order of what the device is given; `from` may be changed at once.
///
/// # Errors
/// Kinds or shapes differ, or memory runs out.
pub fn upload(from: &Tensor, into: &Tensor) -> Result<()> {
    if (from.device(), from.kind(), from.size()) != (Device::Cpu, into.kind(), into.size()) {
        return Err(error!(Argument, "an upload of {from:?} into {into:?}"));
    }
    let mut packed = from.shallow_clone();
    if into.device() != Device::Cpu {
        pack(&mut [&mut packed], true)?;
        send(&mut [&mut packed], into.device())?;
    }
    into.shallow_clone().f_copy_(&packed)?;
    Ok(())
}

/// Handles that the shim assigns new tensors to.
fn places(tensors: &mut [&mut Tensor]) -> Vec<Ptr> {
    tensors.iter().map(|tensor| ptr(tensor)).collect()
}

/// Moves tensors on the CPU into one piece of memory, so that [`send`] copies them at once. A CUDA device reads `pinned` memory
/// by itself, while the program goes on. An error where there is no such memory.
pub fn pack(tensors: &mut [&mut Tensor], pinned: bool) -> Result<()> {
    // SAFETY: an array of live tensors, which are borrowed mutably, so that the shim may put others in their place.
    check(unsafe { te_pack(places(tensors).as_ptr(), tensors.len(), pinned.into()) })
}

/// Moves tensors to a device; those already there stay. Packed tensors take one copy, and if pinned, it is not waited for.
pub fn send(tensors: &mut [&mut Tensor], device: Device) -> Result<()> {
    // SAFETY: an array of live tensors, which are borrowed mutably, so that the shim may put others in their place.
    check(unsafe { te_send(places(tensors).as_ptr(), tensors.len(), device_type(device), device_index(device)) })
}

/// Dense copies of tensors in the CPU's memory, with one wait for all of them.
pub fn receive(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut out = vec![std::ptr::null_mut(); tensors.len()];
    // SAFETY: two arrays of one length, of live tensors and for new ones.
    check(unsafe { te_receive(ptrs(tensors).as_ptr(), tensors.len(), out.as_mut_ptr()) })?;
    match out.iter().any(|tensor| tensor.is_null()) {
        true => Err(error!(Internal, "a copy of a tensor is missing")),
        false => Ok(out.into_iter().map(owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn what_fits_is_uploaded_and_the_rest_refused() {
        let into = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        let from = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]);
        assert!(upload(&from, &into).unwrap_err().to_string().contains("upload of"));
        upload(&from.view([2, 2]), &into).unwrap();
        assert_eq!(into, from.view([2, 2]));
    }

    #[test]
    fn packed_and_sent_tensors_are_what_they_were() {
        let whole = Tensor::arange(24, (Kind::Int64, Device::Cpu)).view([4, 6]);
        let mut tensors = [
            Tensor::from_slice(&[1i64, -2, 3]),
            Tensor::from_slice(&[0.5f32]),
            Tensor::from_slice::<i64>(&[]),
            whole.slice(1, 0, 6, 2),
            Tensor::from(7i32),
        ];
        let before: Vec<Tensor> = tensors.iter().map(Tensor::copy).collect();
        pack(&mut tensors.each_mut(), false).unwrap();
        let same = |tensors: &[Tensor]| {
            tensors.iter().zip(&before).all(|(a, b)| a.kind() == b.kind() && a.size() == b.size() && a.equal(b))
        };
        assert!(same(&tensors), "{tensors:?}");
        let start = |tensor: &Tensor| tensor.data_ptr() as usize;
        assert_eq!(start(&tensors[1]) - start(&tensors[0]), 256, "they do not lie behind one another");
        send(&mut tensors.each_mut(), Device::Cpu).unwrap();
        assert!(same(&tensors));
        let copies = receive(&tensors).unwrap();
        assert!(same(&copies) && start(&copies[0]) != start(&tensors[0]));
        pack(&mut [], false).unwrap();
        assert!(receive(&[]).unwrap().is_empty());
    }
}
