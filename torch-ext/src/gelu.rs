//! GELU in its tanh form, faster on a CPU than libtorch's.
use crate::Result;
use crate::ffi::{new_tensor, ptr, te_gelu};
use tch::Tensor;

/// `x.gelu("tanh")` to a few units in the last place, with a derivative. The result of an element depends on it alone, bit for
/// bit. On a GPU, in half precision and on processors without AVX2 libtorch's own is called.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    // SAFETY: a live tensor, whose kind and device the shim looks at; it hands out a new one.
    new_tensor(|out| unsafe { te_gelu(ptr(x), out) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Every size of value, and the ends.
    fn values() -> Tensor {
        let far =
            Tensor::from_slice(&[0.0f32, -0.0, 100.0, -100.0, 1e30, -1e30, f32::INFINITY, 1e-30, -1e-6, -8.0, 5.0]);
        Tensor::cat(&[Tensor::linspace(-12.0, 12.0, 100_003, (Kind::Float, Device::Cpu)), far], 0)
    }

    fn both(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> (Tensor, Tensor) {
        let x = x.copy().set_requires_grad(true);
        let y = f(&x);
        let weights = Tensor::linspace(-2.0, 2.0, x.numel() as i64, (Kind::Float, Device::Cpu)).to_kind(x.kind());
        (&y * weights).sum(Kind::Float).backward();
        (y.detach(), x.grad())
    }

    #[test]
    fn value_and_slope_are_libtorchs_in_double_precision() {
        let finite = values().clamp(-100.0, 100.0);
        let (ours, slope) = both(&finite, |x| gelu(x).unwrap());
        let (exact, exact_slope) = both(&finite.to_kind(Kind::Double), |x| x.gelu("tanh"));
        // In float32 libtorch's own are within 2e-4 and 1e-3, by what the sum of 1 and tanh loses.
        for (ours, exact) in [(ours, exact), (slope, exact_slope)] {
            let error = (ours.to_kind(Kind::Double) - &exact).abs() / (exact.abs() + 1e-3);
            assert!(error.max().double_value(&[]) < 1e-5, "{}", error.max().double_value(&[]));
        }
    }

    #[test]
    fn bf16_is_within_a_unit_of_libtorchs_and_ends_are_as_theirs() {
        let x = values().to_kind(Kind::BFloat16);
        let (ours, slope) = both(&x.clamp(-100.0, 100.0), |x| gelu(x).unwrap());
        let (theirs, their_slope) = both(&x.clamp(-100.0, 100.0), |x| x.gelu("tanh"));
        assert_eq!(ours.kind(), Kind::BFloat16);
        for (ours, theirs) in [(ours, theirs), (slope, their_slope)] {
            assert!(ours.to_kind(Kind::Float).allclose(&theirs.to_kind(Kind::Float), 1e-2, 1e-3, false));
        }
        for x in [f32::INFINITY, f32::NAN, 1e30] {
            let (ours, theirs) = (gelu(&Tensor::from_slice(&[x])).unwrap(), Tensor::from_slice(&[x]).gelu("tanh"));
            let [ours, theirs] = [ours, theirs].map(|y| y.double_value(&[0]));
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{x}: {ours}, {theirs}");
        }
    }

    #[test]
    fn an_element_gives_the_same_wherever_it_is() {
        let x = values().slice(0, 0, 3000, 1);
        let whole = gelu(&x).unwrap();
        for (start, end) in [(0, 1), (1, 65), (7, 500), (63, 2999)] {
            assert_eq!(gelu(&x.slice(0, start, end, 1)).unwrap(), whole.slice(0, start, end, 1));
        }
    }
}
