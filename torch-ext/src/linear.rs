//! Linear layers for few rows at a time.
use crate::ffi::{check, owned, ptr, te_linear, te_linear_supported};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

const PANEL: i64 = 32;

/// A linear layer whose weights are laid out once for products with few rows, where reading the weights is most of
/// the work (generation). No gradients.
///
/// In float32 on a CPU with AVX-512 a row's result does not depend on the other rows, bit for bit.
#[derive(Debug)]
pub struct Linear {
    /// (out, in), or (out / 32, in, 32) where packed.
    weight: Tensor,
    bias: Option<Tensor>,
    packed: bool,
}

impl Linear {
    /// `weight` is (out, in), `bias` (out).
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Linear> {
        let torch = |e: tch::TchError| Error(e.to_string());
        let (out, input) = weight.size2().map_err(torch)?;
        // SAFETY: takes and touches nothing.
        let supported = unsafe { te_linear_supported() } != 0;
        let packed = supported && weight.device() == Device::Cpu && weight.kind() == Kind::Float && out % PANEL == 0;
        let pack = || weight.f_view([out / PANEL, PANEL, input])?.f_transpose(1, 2)?.f_contiguous();
        Ok(Linear {
            weight: if packed { pack() } else { weight.f_contiguous() }.map_err(torch)?.detach(),
            bias: match (bias, packed) {
                (Some(bias), _) => Some(bias.f_contiguous().map_err(torch)?.detach()),
                (None, true) => Some(Tensor::f_zeros([out], (Kind::Float, Device::Cpu)).map_err(torch)?),
                (None, false) => None,
            },
            packed,
        })
    }

    /// (rows, in) to (rows, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let torch = |e: tch::TchError| Error(e.to_string());
        let (Some(bias), true) = (&self.bias, self.packed) else {
            return x.f_linear(&self.weight, self.bias.as_ref()).map_err(torch);
        };
        let x = x.f_contiguous().map_err(torch)?;
        let mut out = std::ptr::null_mut();
        // SAFETY: three live tensors, whose kinds, devices, layouts and shapes the shim checks; it hands out a new one.
        check(unsafe { te_linear(ptr(&x), ptr(&self.weight), ptr(bias), &mut out) })?;
        Ok(owned(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: Kind) -> (Tensor, Tensor, Linear) {
        tch::manual_seed(2);
        let weight = Tensor::randn([96, 200], (Kind::Float, Device::Cpu)).to_kind(kind);
        let bias = Tensor::randn([96], (Kind::Float, Device::Cpu)).to_kind(kind);
        let linear = Linear::new(&weight, Some(&bias)).unwrap();
        (weight, bias, linear)
    }

    #[test]
    fn gives_what_libtorch_gives_for_any_number_of_rows() {
        for (kind, tolerance) in [(Kind::Float, 1e-4), (Kind::BFloat16, 1.0)] {
            let (weight, bias, linear) = layer(kind);
            let without = Linear::new(&weight, None).unwrap();
            for rows in [0, 1, 7, 11, 12, 22, 23, 32, 100, 132, 133, 300] {
                let x = Tensor::randn([rows, 200], (Kind::Float, Device::Cpu)).to_kind(kind);
                for (ours, bias) in [(linear.forward(&x).unwrap(), Some(&bias)), (without.forward(&x).unwrap(), None)] {
                    let theirs = x.linear(&weight, bias);
                    assert_eq!(ours.size(), theirs.size());
                    assert!(ours.allclose(&theirs, tolerance / 10.0, tolerance, false), "{rows} rows, {kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (.., linear) = layer(Kind::Float);
        if !linear.packed {
            return;
        }
        let x = Tensor::randn([40, 200], (Kind::Float, Device::Cpu));
        let all = linear.forward(&x).unwrap();
        for rows in 1..40 {
            let some = linear.forward(&x.narrow(0, 40 - rows, rows)).unwrap();
            assert!(some.equal(&all.narrow(0, 40 - rows, rows)), "{rows} rows");
        }
    }

    #[test]
    fn a_wrong_width_is_an_error_with_both_shapes() {
        let (.., linear) = layer(Kind::Float);
        let error = linear.forward(&Tensor::zeros([2, 199], (Kind::Float, Device::Cpu))).unwrap_err().to_string();
        assert!(error.contains("199"), "{error}");
    }
}
