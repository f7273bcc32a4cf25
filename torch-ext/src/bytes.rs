//! New tensors whose bytes come from Rust, without a second copy.

use std::slice;

use tch::{Device, Kind, TchError, Tensor};

/// Bytes filled at once: they stay in the processor's cache between zeroing and filling.
const PIECE: usize = 1 << 20;

/// A new tensor of `len` elements on the CPU, in one dimension. `fill` gets its bytes in order, in pieces of at most
/// 1 MiB, zeroed, and puts the content there; a piece ends between two elements. A byte of a `bool` that is not zero
/// is true.
///
/// # Errors
/// libtorch's, if there is no memory or no such kind of tensor, and `fill`'s.
pub fn filled<E: From<TchError>>(
    len: i64,
    kind: Kind,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<Tensor, E> {
    // To C++ a bool is 0 or 1, and anything else is undefined behaviour.
    let raw = if kind == Kind::Bool { Kind::Uint8 } else { kind };
    let tensor = Tensor::f_empty([len], (raw, Device::Cpu))?;
    let bytes = tensor.numel() * raw.elt_size_in_bytes();
    let start = tensor.data_ptr().cast::<u8>();
    for at in (0..bytes).step_by(PIECE) {
        let count = PIECE.min(bytes - at);
        // SAFETY: the tensor is new, dense and on the CPU, so that `start` has `bytes` bytes that nothing else refers
        // to while this function runs; the piece lies within them, and is initialised before there is a slice of it.
        let piece = unsafe {
            let piece = start.add(at);
            piece.write_bytes(0, count);
            slice::from_raw_parts_mut(piece, count)
        };
        fill(piece)?;
    }
    if raw == kind { Ok(tensor) } else { Ok(tensor.f_ne(0)?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_arrives_in_order_and_in_pieces() {
        let mut next = 0u64;
        let tensor = filled::<TchError>(300_001, Kind::Int64, |piece| {
            assert!(piece.len() <= PIECE && piece.iter().all(|byte| *byte == 0));
            for element in piece.chunks_exact_mut(8) {
                element.copy_from_slice(&next.to_ne_bytes());
                next += 1;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(next, 300_001);
        assert_eq!(tensor, Tensor::arange(300_001, (Kind::Int64, Device::Cpu)));
    }

    #[test]
    fn a_bool_is_normalised_and_no_element_is_no_piece() {
        let tensor = filled::<TchError>(3, Kind::Bool, |piece| {
            piece.copy_from_slice(&[0, 1, 200]);
            Ok(())
        });
        assert_eq!(tensor.unwrap(), Tensor::from_slice(&[false, true, true]));
        assert_eq!(filled::<TchError>(0, Kind::Float, |_| panic!("a piece of nothing")).unwrap().size(), [0]);
    }

    #[test]
    fn failures_come_out() {
        let refused = |_: &mut [u8]| Err(TchError::Shape("no".into()));
        assert!(filled(1, Kind::Float, refused).is_err());
        assert!(filled::<TchError>(-1, Kind::Float, |_| Ok(())).is_err());
    }
}
