//! Linear layers for few rows at a time.
use crate::Result;
use crate::ffi::{check, new_tensor, ptr, te_linear, te_linear_set};
use std::ffi::c_int;
use tch::{Device, Kind, Tensor};

const PANEL: i64 = 32;

/// A linear layer whose weights are laid out once for products with few rows, where reading the weights is most of
/// the work (generation). No gradients.
///
/// In float32 on a CPU with AVX2 and FMA, or with AVX-512, a row's result depends neither on the other rows nor on which
/// of the two it is, bit for bit.
#[derive(Debug)]
pub struct PackedLinear {
    /// (out, in), or (out / 32, in, 32) where packed.
    weight: Tensor,
    bias: Option<Tensor>,
    /// The shim's number for the instructions to use, 0 where the weight is not packed.
    set: c_int,
}

impl PackedLinear {
    /// `weight` is (out, in), `bias` (out).
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<PackedLinear> {
        let mut set = 0;
        // SAFETY: an out-pointer.
        check(unsafe { te_linear_set(&mut set) })?;
        PackedLinear::with(weight, bias, set)
    }

    fn with(weight: &Tensor, bias: Option<&Tensor>, set: c_int) -> Result<PackedLinear> {
        let (out, input) = weight.size2()?;
        let packed = set != 0 && weight.device() == Device::Cpu && weight.kind() == Kind::Float && out % PANEL == 0;
        let pack = || weight.f_view([out / PANEL, PANEL, input])?.f_transpose(1, 2)?.f_contiguous();
        Ok(PackedLinear {
            weight: if packed { pack() } else { weight.f_contiguous() }?.detach(),
            bias: match (bias, packed) {
                (Some(bias), _) => Some(bias.f_contiguous()?.detach()),
                (None, true) => Some(Tensor::f_zeros([out], (Kind::Float, Device::Cpu))?),
                (None, false) => None,
            },
            set: if packed { set } else { 0 },
        })
    }

    /// What it computes with.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// (rows, in) to (rows, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (Some(bias), 1..) = (&self.bias, self.set) else {
            return Ok(x.f_linear(&self.weight, self.bias.as_ref())?);
        };
        let x = x.f_contiguous()?;
        // SAFETY: three live tensors, whose kinds, devices, layouts and shapes the shim checks; it hands out a new one.
        new_tensor(|out| unsafe { te_linear(ptr(&x), ptr(&self.weight), ptr(bias), self.set, out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this processor has, whatever `ATEN_CPU_CAPABILITY` leaves of it.
    fn sets() -> Vec<c_int> {
        let mut sets = vec![0];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(1);
            }
            if is_x86_feature_detected!("avx512f") {
                sets.push(2);
            }
        }
        sets
    }

    fn weights(kind: Kind) -> (Tensor, Tensor) {
        tch::manual_seed(2);
        let weight = Tensor::randn([96, 200], (Kind::Float, Device::Cpu)).to_kind(kind);
        let bias = Tensor::randn([96], (Kind::Float, Device::Cpu)).to_kind(kind);
        (weight, bias)
    }

    #[test]
    fn gives_what_libtorch_gives_for_any_number_of_rows() {
        for (kind, tolerance) in [(Kind::Float, 1e-4), (Kind::BFloat16, 1.0)] {
            let (weight, bias) = weights(kind);
            for set in sets() {
                let linear = PackedLinear::with(&weight, Some(&bias), set).unwrap();
                let without = PackedLinear::with(&weight, None, set).unwrap();
                assert_eq!(linear.set, if kind == Kind::Float { set } else { 0 });
                for rows in (0..24).chain([32, 100, 132, 133, 300]) {
                    let x = Tensor::randn([rows, 200], (Kind::Float, Device::Cpu)).to_kind(kind);
                    for (ours, bias) in [(linear.forward(&x), Some(&bias)), (without.forward(&x), None)] {
                        let (ours, theirs) = (ours.unwrap(), x.linear(&weight, bias));
                        assert_eq!(ours.size(), theirs.size());
                        let close = ours.allclose(&theirs, tolerance / 10.0, tolerance, false);
                        assert!(close, "{rows} rows, {kind:?}, set {set}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_depends_neither_on_the_others_nor_on_the_instructions() {
        let (weight, bias) = weights(Kind::Float);
        let x = Tensor::randn([70, 200], (Kind::Float, Device::Cpu));
        let mut all = None;
        for set in sets().into_iter().filter(|&set| set != 0) {
            let linear = PackedLinear::with(&weight, Some(&bias), set).unwrap();
            let all = all.get_or_insert_with(|| linear.forward(&x).unwrap());
            for rows in 1..=70 {
                let some = linear.forward(&x.narrow(0, 70 - rows, rows)).unwrap();
                assert!(some.equal(&all.narrow(0, 70 - rows, rows)), "{rows} rows, set {set}");
            }
        }
    }

    #[test]
    fn a_wrong_width_or_unknown_instructions_are_an_error() {
        let (weight, bias) = weights(Kind::Float);
        let wrong = Tensor::zeros([2, 199], (Kind::Float, Device::Cpu));
        let error = PackedLinear::new(&weight, Some(&bias)).unwrap().forward(&wrong).unwrap_err().to_string();
        assert!(error.contains("199"), "{error}");
        let error = PackedLinear::with(&weight, Some(&bias), 3).unwrap().forward(&wrong).unwrap_err().to_string();
        assert!(error.contains("instruction"), "{error}");
    }
}
