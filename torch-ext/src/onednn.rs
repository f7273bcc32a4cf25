//! Linear layers for many rows at a time.
use crate::Result;
use crate::ffi::{check, new_tensor, ptr, te_onednn_linear, te_onednn_pack, te_onednn_supported};
use tch::{Device, Kind, Tensor};

/// A linear layer in float32 on a CPU by oneDNN, whose products are as fast as the processor on every make; libtorch's own
/// are MKL's, which run at half of that on AMD's. No gradients.
#[derive(Debug)]
pub struct OneDnnLinear {
    packed: Tensor,
    bias: Tensor,
}

impl OneDnnLinear {
    /// `weight` is (out, in), `bias` (out). Nothing where it is not float32 on a CPU, or this libtorch has no oneDNN.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Option<OneDnnLinear>> {
        let mut supported = 0;
        // SAFETY: an out-pointer.
        check(unsafe { te_onednn_supported(&mut supported) })?;
        if supported == 0 || weight.device() != Device::Cpu || weight.kind() != Kind::Float {
            return Ok(None);
        }
        let weight = weight.f_contiguous()?.f_detach()?;
        let bias = bias.f_contiguous()?.f_detach()?;
        // SAFETY: a live tensor; the shim hands out a new one.
        let packed = new_tensor(|out| unsafe { te_onednn_pack(ptr(&weight), out) })?;
        Ok(Some(OneDnnLinear { packed, bias }))
    }

    /// (rows, in) to (rows, out), through GELU by the error function if `gelu`.
    pub fn forward(&self, x: &Tensor, gelu: bool) -> Result<Tensor> {
        // SAFETY: three live tensors, whose kinds, devices and shapes the shim checks; it hands out a new one.
        new_tensor(|out| unsafe { te_onednn_linear(ptr(x), ptr(&self.packed), ptr(&self.bias), gelu.into(), out) })
    }

    /// Another handle of the same layer.
    pub fn shallow_clone(&self) -> OneDnnLinear {
        OneDnnLinear { packed: self.packed.shallow_clone(), bias: self.bias.shallow_clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> (Tensor, Tensor, OneDnnLinear) {
        tch::manual_seed(2);
        let weight = Tensor::randn([96, 200], (Kind::Float, Device::Cpu));
        let bias = Tensor::randn([96], (Kind::Float, Device::Cpu));
        let layer = OneDnnLinear::new(&weight, &bias).unwrap().unwrap();
        (weight, bias, layer)
    }

    #[test]
    fn gives_what_libtorch_gives_for_any_number_of_rows() {
        let (weight, bias, layer) = layer();
        for rows in [0, 1, 7, 32, 133, 1000] {
            let x = Tensor::randn([rows, 200], (Kind::Float, Device::Cpu));
            let theirs = x.linear(&weight, Some(&bias));
            for (ours, theirs) in
                [(layer.forward(&x, false), theirs.copy()), (layer.forward(&x, true), theirs.gelu("none"))]
            {
                let ours = ours.unwrap();
                assert_eq!((ours.size(), ours.is_mkldnn()), (theirs.size(), false));
                assert!(ours.allclose(&theirs, 1e-5, 1e-4, false), "{rows} rows");
            }
        }
    }

    #[test]
    fn other_kinds_have_none_and_a_wrong_width_is_an_error_with_both_shapes() {
        let half = Tensor::zeros([4, 4], (Kind::BFloat16, Device::Cpu));
        assert!(OneDnnLinear::new(&half, &half).unwrap().is_none());
        let error =
            layer().2.forward(&Tensor::zeros([2, 199], (Kind::Float, Device::Cpu)), false).unwrap_err().to_string();
        assert!(error.contains("199") && error.contains("96"), "{error}");
    }
}
