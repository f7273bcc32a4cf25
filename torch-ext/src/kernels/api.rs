//! The kernels of our own, as the CUDA part offers them.
use crate::Result;
use crate::ffi::{Ptr, check, float_type, new_tensor, owned, ptr};
use std::ffi::{c_char, c_int};
use tch::{Kind, Tensor};

/// Features of one attention head, for which the kernels are made.
pub const HEAD_SIZE: i64 = 64;
/// Characters that [`super::draw`] draws from.
pub const CHARACTERS: i64 = 128;
/// A kernel of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// [`super::short_attention`].
    ShortAttention,
    /// [`super::append_attend`].
    AppendAttend,
    /// [`super::draw`].
    Draw,
    /// [`super::norm_step`].
    NormStep,
    /// [`super::add_norm`].
    AddNorm,
}

impl Kernel {
    /// All there are.
    pub const ALL: [Kernel; 5] =
        [Kernel::ShortAttention, Kernel::AppendAttend, Kernel::Draw, Kernel::NormStep, Kernel::AddNorm];

    pub(super) fn takes(self, kind: Kind) -> bool {
        matches!(kind, Kind::Half | Kind::BFloat16)
            || (kind == Kind::Float && !matches!(self, Kernel::ShortAttention | Kernel::AddNorm))
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kernel::ShortAttention => "attention of short sequences",
            Kernel::AppendAttend => "attention of new tokens",
            Kernel::Draw => "drawing characters",
            Kernel::NormStep => "a residual sum and its norm",
            Kernel::AddNorm => "a residual sum and its norm, in training",
        })
    }
}

/// `te_kernels` of the CUDA part.
#[repr(C)]
pub(super) struct Api {
    short_attention: extern "C" fn(Ptr, Ptr, i64, i64, f64, c_int, *mut Ptr) -> *mut c_char,
    append_attend: extern "C" fn(Ptr, Ptr, Ptr, Ptr, *mut Ptr) -> *mut c_char,
    draw: extern "C" fn(Ptr, Ptr, Ptr, Ptr, Ptr) -> *mut c_char,
    norm_step: extern "C" fn(Ptr, Ptr, Ptr, Ptr, f64, c_int, *mut Ptr) -> *mut c_char,
    add_norm: extern "C" fn(Ptr, Ptr, Ptr, Ptr, f64, *mut Ptr, *mut Ptr) -> *mut c_char,
}

/// The shim checks kinds, devices, layouts and shapes; the tensors are alive during the call.
impl Api {
    pub(super) fn short_attention(
        &self,
        qkv: &Tensor,
        starts: &Tensor,
        heads: i64,
        max_len: i64,
        dropout: f64,
        causal: bool,
    ) -> Result<Tensor> {
        new_tensor(|out| (self.short_attention)(ptr(qkv), ptr(starts), heads, max_len, dropout, causal.into(), out))
    }

    pub(super) fn append_attend(
        &self,
        qkv: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        positions: &Tensor,
    ) -> Result<Tensor> {
        new_tensor(|out| (self.append_attend)(ptr(qkv), ptr(keys), ptr(values), ptr(positions), out))
    }

    pub(super) fn draw(
        &self,
        logits: &Tensor,
        uniform: &Tensor,
        settings: &Tensor,
        fixed: &Tensor,
        out: &Tensor,
    ) -> Result<()> {
        check((self.draw)(ptr(logits), ptr(uniform), ptr(settings), ptr(fixed), ptr(out)))
    }

    pub(super) fn norm_step(
        &self,
        x: &Tensor,
        delta: Option<&Tensor>,
        weight: &Tensor,
        bias: &Tensor,
        epsilon: f64,
        kind: Kind,
    ) -> Result<Tensor> {
        let delta = delta.map_or(std::ptr::null_mut(), ptr);
        let kind = float_type(kind).ok_or_else(|| error!(Argument, "a norm in {kind:?}"))?;
        new_tensor(|out| (self.norm_step)(ptr(x), delta, ptr(weight), ptr(bias), epsilon, kind, out))
    }

    pub(super) fn add_norm(
        &self,
        x: &Tensor,
        delta: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        epsilon: f64,
    ) -> Result<(Tensor, Tensor)> {
        let mut sum = std::ptr::null_mut();
        let out =
            new_tensor(|out| (self.add_norm)(ptr(x), ptr(delta), ptr(weight), ptr(bias), epsilon, &mut sum, out))?;
        Ok((owned(sum), out))
    }
}

/// A row of [`super::DrawSettings`]: top-k, top-p and one over the temperature, with what keeps all characters in the place of a top-k of 0 and a
/// top-p of 1.
pub fn draw_row(top_k: i64, top_p: f64, temperature: f64) -> [f32; 3] {
    let kept = if top_k == 0 { CHARACTERS } else { top_k.min(CHARACTERS) };
    // No rounding of a sum of probabilities reaches 2. Greedy sampling leaves 1e-12 of each other character, which is 0 to
    // the power of 8.
    let top_p = if top_p < 1.0 { top_p } else { 2.0 };
    let exponent = if top_k == 1 { 8.0 } else { 1.0 / temperature };
    [kept as f32, top_p as f32, exponent as f32]
}

/// Top-k, top-p and temperature of rows of [`draw_row`].
pub(super) fn own_settings(rows: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_cat(&[rows.f_narrow(1, 0, 2)?, rows.f_narrow(1, 2, 1)?.f_reciprocal()?], 1)?)
}
