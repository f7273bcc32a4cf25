//! Kernels of our own for NVIDIA cards from compute capability 8.0, where libtorch's are far from what the card can do:
//! attention inside short sequences, attention of one new token behind kept keys and values, drawing characters, and a residual
//! sum with its norm, in generation and in training.
//!
//! The sources are in `torch-ext/kernels`. Each kernel has libtorch's path beside it (`libtorch.rs`), which is used on other
//! devices, where the program was built without nvcc, where the kernel does not agree with that path on the card, and where
//! `NOTAGEN_TRAIN_KERNELS` is `libtorch`. Nothing here waits for the device but [`ready`].
use crate::Result;
use crate::device::{card, cuda_part};
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

mod api;
mod check;
mod libtorch;
#[cfg(test)]
mod tests;

use api::{Api, own_settings};
pub use api::{CHARACTERS, HEAD_SIZE, Kernel, draw_row};

/// The most tokens of a short sequence.
pub const LONGEST: i64 = 24;
/// The most numbers that a row of a residual stream has.
const MOST_HIDDEN: i64 = 2048;
const SWITCH: &str = "NOTAGEN_TRAIN_KERNELS";

/// What [`ready`] found: kernel, device, kind and whether ours is used.
static FOUND: Mutex<Vec<(Kernel, Device, Kind, bool)>> = Mutex::new(Vec::new());

fn found(kernel: Kernel, device: Device, kind: Kind) -> Option<bool> {
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.iter().find(|(k, d, t, _)| (*k, *d, *t) == (kernel, device, kind)).map(|(.., ours)| *ours)
}

/// Whether our own kernels can be used on the device at all. An error says why not.
pub fn available(device: Device) -> Result<()> {
    api(device).map(drop)
}

/// Compares each kernel with libtorch's on the device, once a process, and uses it from then on if they agree. Without this call
/// libtorch's are used. It waits for the device, so that it cannot be called while work is recorded. It draws no random numbers.
///
/// Returns a warning for each kernel that could be used and is not, once a process.
///
/// # Errors
/// `NOTAGEN_TRAIN_KERNELS` is neither `own` nor `libtorch`.
pub fn ready(device: Device, kind: Kind) -> Result<Vec<String>> {
    if !wanted()? || !device.is_cuda() {
        return Ok(Vec::new());
    }
    let api = api(device);
    let mut warnings = Vec::new();
    if let Err(error) = &api
        && Kernel::ALL.iter().all(|&kernel| found(kernel, device, kind).is_none())
    {
        warnings.push(format!("libtorch's kernels are used instead of our own: {error}"));
    }
    for kernel in Kernel::ALL.into_iter().filter(|&kernel| found(kernel, device, kind).is_none()) {
        let ours = match &api {
            Ok(api) if kernel.takes(kind) => match check::agrees(api, kernel, device, kind) {
                Ok(()) => true,
                Err(error) => {
                    let what = format!("{kernel} in {kind:?} on {device:?}");
                    warnings.push(format!("{what}: libtorch's kernel is used instead of our own: {error}"));
                    false
                }
            },
            _ => false,
        };
        FOUND.lock().unwrap_or_else(PoisonError::into_inner).push((kernel, device, kind, ours));
    }
    Ok(warnings)
}

/// Whether our own kernel is used for tensors of this kind on this device: after [`ready`] found it right.
pub fn is_own(kernel: Kernel, device: Device, kind: Kind) -> bool {
    found(kernel, device, kind) == Some(true)
}

/// softmax(Q K' / 8) V inside each sequence of packed tokens, with a derivative. Dropout is on the weights.
///
/// `qkv` is (tokens, 3 * heads * 64); `starts`, int32 on the same device, has the first token of each sequence and the number
/// of tokens at its end; no sequence has more than `max_len` tokens. Returns (tokens, heads * 64). Our own kernel is for 16 bits and
/// `max_len` up to 24. Its dropout takes its seed from the device's generator, and it gives the same bits each time.
pub fn short_attention(
    qkv: &Tensor,
    starts: &Tensor,
    heads: i64,
    max_len: i64,
    dropout: f64,
    causal: bool,
) -> Result<Tensor> {
    if max_len <= LONGEST && is_own(Kernel::ShortAttention, qkv.device(), qkv.kind()) {
        return api(qkv.device())?.short_attention(qkv, starts, heads, max_len, dropout, causal);
    }
    Ok(libtorch::short_attention(qkv, starts, heads, max_len, dropout, causal)?)
}

/// Writes each row's key and value at its position and attends to all up to it. No derivative.
///
/// `qkv` is (rows, 3 * heads * 64); `keys` and `values` are (slots, heads, positions, 64), of which the first `rows` slots
/// belong to the rows; `positions` (rows), int32 or int64, has where each row's goes. A row whose position is not in the cache
/// (-1: an idle slot) changes nothing and gives zeros. Returns (rows, heads * 64). The caches must hold numbers everywhere: libtorch's
/// path multiplies what lies behind a position by 0.
pub fn append_attend(qkv: &Tensor, keys: &Tensor, values: &Tensor, positions: &Tensor) -> Result<Tensor> {
    if is_own(Kernel::AppendAttend, qkv.device(), qkv.kind()) {
        return api(qkv.device())?.append_attend(qkv, keys, values, positions);
    }
    Ok(libtorch::append_attend(qkv, keys, values, positions)?)
}

/// How the characters of each row are drawn: rows of all settings in the same few launches.
pub struct DrawSettings(Columns);

enum Columns {
    /// (rows, 3), float32: top-k, top-p and temperature.
    Own(Tensor),
    Libtorch(libtorch::DrawColumns),
}

impl DrawSettings {
    /// Numbers of a row.
    pub const COLUMNS: i64 = 3;

    /// `rows` is (rows, 3), float32: [`draw_row`] of each; `kind` is that of the logits.
    pub fn new(rows: &Tensor, kind: Kind) -> Result<DrawSettings> {
        Ok(DrawSettings(match is_own(Kernel::Draw, rows.device(), kind) {
            true => Columns::Own(own_settings(rows)?),
            false => Columns::Libtorch(libtorch::DrawColumns::new(rows)?),
        }))
    }

    /// What libtorch's path draws characters in proportion to: for tests.
    #[doc(hidden)]
    pub fn weights(&self, logits: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Columns::Own(_) => Err(error!(Argument, "our own kernel keeps its weights to itself")),
            Columns::Libtorch(columns) => Ok(columns.weights(logits)?),
        }
    }
}

/// Draws a character for each row, int64 (rows), as `model::Sampling::draw` does with settings for each row.
///
/// `logits` is (rows, 128); `uniform` (rows), float32, has a number from [0, 1) for each; `fixed` (rows), int64, what a row
/// gives whatever its logits are, or -1. All may have a stride. Nothing is asked of the host: the work can be recorded.
pub fn draw(logits: &Tensor, uniform: &Tensor, settings: &DrawSettings, fixed: &Tensor) -> Result<Tensor> {
    match &settings.0 {
        Columns::Own(settings) => {
            let out = fixed.f_empty_like()?;
            api(logits.device())?.draw(logits, uniform, settings, fixed, &out)?;
            Ok(out)
        }
        Columns::Libtorch(columns) => Ok(libtorch::draw(logits, uniform, columns, fixed)?),
    }
}

/// x += delta in place, then the layer norm of x in `kind`. No derivative.
///
/// `x` is (rows, hidden), float32 and contiguous; `delta` the same in `kind`; `weight` and `bias` are (hidden), float32. Returns (rows,
/// hidden). Our own kernel is for a hidden size of up to 2,048, a multiple of 8.
pub fn norm_step(
    x: &Tensor,
    delta: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    kind: Kind,
) -> Result<Tensor> {
    let hidden = weight.numel() as i64;
    if hidden <= MOST_HIDDEN && hidden % 8 == 0 && is_own(Kernel::NormStep, x.device(), kind) {
        return api(x.device())?.norm_step(x, delta, weight, bias, epsilon, kind);
    }
    Ok(libtorch::norm_step(x, delta, weight, bias, epsilon, kind)?)
}

/// x + delta, and its layer norm, both with derivatives.
///
/// `x` is (rows, hidden), float32; `delta` the same in any kind; `weight` and `bias` are (hidden), float32. Returns the sum in float32
/// and the norm: in `delta`'s kind by our own kernel, which is for 16 bits and a hidden size as of [`norm_step`], and in float32 by
/// libtorch's, for autocast to round.
pub fn add_norm(x: &Tensor, delta: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<(Tensor, Tensor)> {
    let hidden = weight.numel() as i64;
    if hidden <= MOST_HIDDEN && hidden % 8 == 0 && is_own(Kernel::AddNorm, x.device(), delta.kind()) {
        return api(x.device())?.add_norm(x, delta, weight, bias, epsilon);
    }
    Ok(libtorch::add_norm(x, delta, weight, bias, epsilon)?)
}

/// Whether our own kernels are asked for.
fn wanted() -> Result<bool> {
    match std::env::var(SWITCH) {
        Err(std::env::VarError::NotPresent) => Ok(true),
        Ok(value) if value == "own" => Ok(true),
        Ok(value) if value == "libtorch" => Ok(false),
        other => Err(error!(Argument, "{SWITCH} is {:?}: it must be own or libtorch", other.unwrap_or_default())),
    }
}

fn api(device: Device) -> Result<&'static Api> {
    let Device::Cuda(index) = device else {
        return Err(error!(Argument, "{device:?} is no CUDA device"));
    };
    if !wanted()? {
        return Err(error!(Argument, "{SWITCH} is libtorch"));
    }
    static API: Mutex<Option<&'static Api>> = Mutex::new(None);
    let mut known = API.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(api) = *known {
        return Ok(api);
    }
    let capability = card(index)?.capability;
    if capability < (8, 0) {
        let (major, minor) = capability;
        return Err(error!(Device, "the card has compute capability {major}.{minor}, and they need 8.0"));
    }
    let table = cuda_part(c"te_kernels").map_err(|error| {
        error!(Device, "{error}: it was built without nvcc (scripts/setup --cuda installs it with the CUDA set)")
    })?;
    // SAFETY: the name belongs to a constant of that layout, and the library stays loaded.
    let api = unsafe { &*table.cast::<Api>() };
    *known = Some(api);
    Ok(api)
}
