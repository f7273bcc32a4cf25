//! Whether a kernel gives what libtorch's path gives, on small inputs. Costs some milliseconds and waits for the device.
use super::api::{Api, CHARACTERS, HEAD_SIZE, Kernel, draw_row, own_settings};
use super::libtorch;
use crate::Result;
use tch::{Device, Kind, Tensor};

/// An error says how they differ.
pub(super) fn agrees(api: &Api, kernel: Kernel, device: Device, kind: Kind) -> Result<()> {
    match kernel {
        Kernel::ShortAttention => tch::with_grad(|| short_attention(api, device, kind)),
        Kernel::AppendAttend => tch::no_grad(|| append_attend(api, device, kind)),
        Kernel::Draw => tch::no_grad(|| draw(api, device, kind)),
        Kernel::NormStep => tch::no_grad(|| norm_step(api, device, kind)),
        Kernel::AddNorm => tch::with_grad(|| add_norm(api, device, kind)),
    }
}

/// Numbers between -`size` and `size`, the same each time: drawing them would change what a training draws.
pub(super) fn numbers(shape: &[i64], size: f64, first: f64, device: Device, kind: Kind) -> Result<Tensor> {
    let count = shape.iter().product::<i64>();
    let x = Tensor::f_arange(count, (Kind::Double, device))?.f_add_scalar(first)?.f_mul_scalar(1.7)?;
    Ok(x.f_square()?.f_sin()?.f_mul_scalar(size)?.f_to_kind(kind)?.f_view(shape)?)
}

/// Two results of 16 bits may differ by some of their units.
pub(super) fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => 2e-2,
        Kind::Half => 3e-3,
        _ => 1e-5,
    }
}

/// The largest difference over the largest number.
pub(super) fn difference(ours: &Tensor, theirs: &Tensor) -> Result<f64> {
    let (ours, theirs) = (ours.f_to_kind(Kind::Double)?, theirs.f_to_kind(Kind::Double)?);
    let most = |t: &Tensor| -> Result<f64> { Ok(t.f_abs()?.f_max()?.f_double_value(&[])?) };
    Ok(most(&ours.f_sub(&theirs)?)? / most(&theirs)?.max(1e-30))
}

fn close(what: &str, ours: &Tensor, theirs: &Tensor, kind: Kind) -> Result<()> {
    let by = difference(ours, theirs)?;
    // A result that is not a number is not close either.
    match by <= tolerance(kind) {
        true => Ok(()),
        false => Err(error!(Internal, "{what} differs by {by:.1e} of the largest number")),
    }
}

fn short_attention(api: &Api, device: Device, kind: Kind) -> Result<()> {
    let heads = 3;
    for (longest, causal) in [(16, true), (16, false), (17, true)] {
        let starts = [0, longest, longest + 5, longest + 6, 2 * longest + 6, 2 * longest + 15];
        let tokens = i64::from(starts[5]);
        let starts = Tensor::f_from_slice(&starts)?.f_to_device(device)?;
        let run = |f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<(Tensor, Tensor)> {
            let qkv = numbers(&[tokens, 3 * heads * HEAD_SIZE], 2.0, 0.0, device, kind)?.f_set_requires_grad(true)?;
            let out = f(&qkv)?;
            let weights = numbers(&[tokens, heads * HEAD_SIZE], 1.0, 0.5, device, kind)?;
            let loss = out.f_mul(&weights)?.f_sum(Kind::Float)?;
            let mut grads = Tensor::f_run_backward(&[loss], &[qkv], false, false)?;
            Ok((out.f_detach()?, grads.remove(0)))
        };
        let longest = i64::from(longest);
        let (out, grad) = run(&|qkv| api.short_attention(qkv, &starts, heads, longest, 0.0, causal))?;
        let (right, slope) = run(&|qkv| {
            Ok(libtorch::short_attention(&qkv.f_to_kind(Kind::Float)?, &starts, heads, longest, 0.0, causal)?)
        })?;
        close("its result", &out, &right, kind)?;
        close("its derivative", &grad, &slope, kind)?;
    }
    Ok(())
}

fn append_attend(api: &Api, device: Device, kind: Kind) -> Result<()> {
    let (rows, heads) = (4, 3);
    for (capacity, positions) in [(17, [16i64, 0, 7, -1]), (200, [199, 70, -1, 0])] {
        let qkv = numbers(&[rows, 3 * heads * HEAD_SIZE], 2.0, 0.0, device, kind)?;
        let cache = |first| numbers(&[rows + 1, heads, capacity, HEAD_SIZE], 1.0, first, device, kind);
        let (keys, values, right_keys, right_values) = (cache(0.3)?, cache(0.7)?, cache(0.3)?, cache(0.7)?);
        let positions = Tensor::f_from_slice(&positions)?.f_to_device(device)?;
        let ours = api.append_attend(&qkv, &keys, &values, &positions)?;
        let theirs = libtorch::append_attend(&qkv, &right_keys, &right_values, &positions)?;
        close("its result", &ours, &theirs, kind)?;
        if !(keys.f_equal(&right_keys)? && values.f_equal(&right_values)?) {
            return Err(error!(Internal, "what it keeps differs"));
        }
    }
    Ok(())
}

fn draw(api: &Api, device: Device, kind: Kind) -> Result<()> {
    const ROWS: i64 = 512;
    // Each row has the same numbers in another order, no two alike, exact in 16 bits: which of two equal ones is cut is left open.
    let row = Tensor::f_arange(ROWS, (Kind::Int64, device))?.f_unsqueeze(1)?;
    let character = Tensor::f_arange(CHARACTERS, (Kind::Int64, device))?;
    let order = row.f_mul_scalar(2)?.f_add_scalar(1)?.f_mul(&character)?.f_add(&row)?.f_remainder(CHARACTERS)?;
    let logits = order.f_sub_scalar(64)?.f_to_kind(kind)?.f_div_scalar(8)?;
    let uniform = numbers(&[ROWS], 0.4995, 0.2, device, Kind::Float)?.f_add_scalar(0.4995)?;
    let settings = [(9, 0.9, 1.2), (0, 1.0, 1.0), (1, 1.0, 1.0), (0, 0.8, 0.7)];
    let settings = settings.map(|(k, p, t)| draw_row(k, p, t)).as_flattened().repeat(ROWS as usize / 4);
    let settings = Tensor::f_from_slice(&settings)?.f_view([ROWS, 3])?.f_to_device(device)?;
    let fixed = Tensor::f_from_slice(&[-1i64, -1, -1, -1, 65, -1, -1, -1].repeat(64))?.f_to_device(device)?;
    let out = fixed.f_empty_like()?;
    api.draw(&logits, &uniform, &own_settings(&settings)?, &fixed, &out)?;
    let theirs = libtorch::draw(&logits, &uniform, &libtorch::DrawColumns::new(&settings)?, &fixed)?;
    // A number may lie so near to a limit that rounding decides.
    match out.f_ne_tensor(&theirs)?.f_sum(Kind::Int64)?.f_int64_value(&[])? {
        0..=2 => Ok(()),
        n => Err(error!(Internal, "{n} of {ROWS} characters differ")),
    }
}

fn norm_step(api: &Api, device: Device, kind: Kind) -> Result<()> {
    for (hidden, adds) in [(1280, true), (768, true), (2048, false)] {
        let stream = || numbers(&[5, hidden], 3.0, 0.0, device, Kind::Float);
        let (x, right) = (stream()?, stream()?);
        let delta = adds.then(|| numbers(&[5, hidden], 2.0, 0.4, device, kind)).transpose()?;
        let one = |first| numbers(&[hidden], 1.0, first, device, Kind::Float);
        let (weight, bias) = (one(0.1)?, one(0.2)?);
        let ours = api.norm_step(&x, delta.as_ref(), &weight, &bias, 1e-5, kind)?;
        let theirs = libtorch::norm_step(&right, delta.as_ref(), &weight, &bias, 1e-5, kind)?;
        close("its result", &ours, &theirs, kind)?;
        close("its stream", &x, &right, Kind::Float)?;
    }
    Ok(())
}

fn add_norm(api: &Api, device: Device, kind: Kind) -> Result<()> {
    for (rows, hidden) in [(70, 1280), (3, 768), (33, 2048)] {
        // Both results, and the gradients of all inputs.
        let run = |own: bool| -> Result<Vec<Tensor>> {
            let inputs = [
                numbers(&[rows, hidden], 3.0, 0.0, device, Kind::Float)?,
                numbers(&[rows, hidden], 2.0, 0.4, device, kind)?,
                numbers(&[hidden], 1.0, 0.1, device, Kind::Float)?,
                numbers(&[hidden], 1.0, 0.2, device, Kind::Float)?,
            ];
            let inputs = inputs.map(|t| t.set_requires_grad(true));
            let [x, delta, weight, bias] = &inputs;
            let (sum, norm) = match own {
                true => api.add_norm(x, delta, weight, bias, 1e-5)?,
                false => libtorch::add_norm(x, delta, weight, bias, 1e-5)?,
            };
            let slope = |first| numbers(&[rows, hidden], 1.0, first, device, kind);
            let loss = sum.f_mul(&slope(0.6)?)?.f_sum(Kind::Float)?;
            let loss = loss.f_add(&norm.f_mul(&slope(0.8)?)?.f_sum(Kind::Float)?)?;
            let mut all = vec![sum.f_detach()?, norm.f_detach()?];
            all.extend(Tensor::f_run_backward(&[loss], &inputs, false, false)?);
            Ok(all)
        };
        let (ours, theirs) = (run(true)?, run(false)?);
        let names =
            ["its sum", "its norm", "the slope of x", "the slope of delta", "the slope of weight", "the slope of bias"];
        for ((what, ours), theirs) in names.iter().zip(&ours).zip(&theirs) {
            close(what, ours, theirs, kind)?;
        }
    }
    Ok(())
}
