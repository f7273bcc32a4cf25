//! What the kernels compute, by libtorch's. Nothing waits for the device.
use super::api::HEAD_SIZE;
use tch::{Kind, TchError, Tensor};

const SCALE: f64 = 0.125;
const CHARACTERS: i64 = 128;
const EPSILON: f64 = 1e-12;

pub(super) fn short_attention(
    qkv: &Tensor,
    starts: &Tensor,
    heads: i64,
    max_len: i64,
    dropout: f64,
    causal: bool,
) -> Result<Tensor, TchError> {
    let (tokens, _) = qkv.size2()?;
    let sequences = starts.size1()? - 1;
    if tokens == 0 {
        return Tensor::f_zeros([0, heads * HEAD_SIZE], (qkv.kind(), qkv.device()));
    }
    let int = (Kind::Int64, qkv.device());
    // So many tokens are only there where every sequence is full.
    let full = tokens == sequences * max_len;
    let first = starts.f_narrow(0, 0, sequences)?.f_to_kind(Kind::Int64)?;
    let lengths = starts.f_narrow(0, 1, sequences)?.f_sub(&first)?;
    let place = Tensor::f_arange(max_len, int)?;
    let padded = if full {
        qkv.shallow_clone()
    } else {
        let token = first.f_unsqueeze(1)?.f_add(&place)?.f_clamp_max(tokens - 1)?;
        qkv.f_index_select(0, &token.f_reshape([-1])?)?
    };
    let parts = padded.f_reshape([sequences, max_len, 3, heads, HEAD_SIZE])?.f_permute([2, 0, 3, 1, 4])?.f_unbind(0)?;
    let mut scores = parts[0].f_matmul(&parts[1].f_transpose(2, 3)?)?.f_to_kind(Kind::Float)?.f_mul_scalar(SCALE)?;
    // A number, not an infinity: a sequence without tokens must not give what is not a number to others' gradients.
    let hide = |scores: &Tensor, hidden: &Tensor| scores.f_masked_fill(hidden, -1e30);
    if causal {
        scores = hide(&scores, &place.f_unsqueeze(1)?.f_lt_tensor(&place)?)?;
    }
    if !full {
        let missing = lengths.f_unsqueeze(1)?.f_le_tensor(&place)?;
        scores = hide(&scores, &missing.f_view([sequences, 1, 1, max_len])?)?;
    }
    let weights = scores.f_softmax(-1, Kind::Float)?.f_dropout(dropout, dropout > 0.0)?;
    let out = weights.f_to_kind(qkv.kind())?.f_matmul(&parts[2])?.f_transpose(1, 2)?;
    let out = out.f_reshape([sequences * max_len, heads * HEAD_SIZE])?;
    if full {
        return Ok(out);
    }
    let sequence = Tensor::f_arange(sequences, int)?.f_repeat_interleave_self_tensor(&lengths, 0, tokens)?;
    let skipped = sequence.f_mul_scalar(max_len)?.f_sub(&first.f_index_select(0, &sequence)?)?;
    out.f_index_select(0, &Tensor::f_arange(tokens, int)?.f_add(&skipped)?)
}

pub(super) fn append_attend(
    qkv: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    positions: &Tensor,
) -> Result<Tensor, TchError> {
    let (_, heads, capacity, _) = keys.size4()?;
    let (rows, _) = qkv.size2()?;
    let parts = qkv.f_view([rows, 3, heads, 1, HEAD_SIZE])?.f_unbind(1)?;
    let positions = positions.f_to_kind(Kind::Int64)?.f_view([rows, 1, 1, 1])?;
    let there = positions.f_ge(0)?.f_logical_and(&positions.f_lt(capacity)?)?;
    let positions = positions.f_clamp(0, capacity - 1)?;
    let at = positions.f_expand([rows, heads, 1, HEAD_SIZE], false)?;
    let mut caches = Vec::with_capacity(2);
    for (cache, new) in [keys, values].into_iter().zip(&parts[1..]) {
        let mut cache = cache.f_narrow(0, 0, rows)?;
        let new = new.f_where_self(&there, &cache.f_gather(2, &at, false)?)?;
        let _ = cache.f_scatter_(2, &at, &new)?;
        caches.push(cache);
    }
    let seen = Tensor::f_arange(capacity, (Kind::Int64, qkv.device()))?.f_le_tensor(&positions)?;
    let out = Tensor::f_scaled_dot_product_attention(
        &parts[0],
        &caches[0],
        &caches[1],
        Some(&seen),
        0.0,
        false,
        SCALE,
        false,
    )?;
    out.f_masked_fill(&there.f_logical_not()?, 0.0)?.f_reshape([rows, heads * HEAD_SIZE])
}

/// The rows' characters.
pub(super) fn draw(logits: &Tensor, uniform: &Tensor, settings: &Tensor, fixed: &Tensor) -> Result<Tensor, TchError> {
    let setting = |i| settings.f_narrow(1, i, 1);
    let (top_k, top_p, temperature) = (setting(0)?, setting(1)?, setting(2)?);
    let place = Tensor::f_arange(CHARACTERS, (Kind::Float, logits.device()))?;
    let p = normalise(&logits.f_softmax(-1, Kind::Float)?)?;
    let (mut p, order) = p.f_sort(-1, true)?;
    let behind = top_k.f_gt(0)?.f_logical_and(&top_k.f_le_tensor(&place)?)?;
    p = normalise(&divide(&p.f_masked_fill(&behind, 0.0)?)?)?;
    let before = p.f_cumsum(-1, Kind::Float)?.f_sub(&p)?;
    let behind = before.f_gt_tensor(&top_p)?.f_logical_and(&top_p.f_lt(1.0)?)?.f_logical_and(&place.f_gt(0)?)?;
    p = normalise(&divide(&p.f_masked_fill(&behind, 0.0)?)?)?;
    p = divide(&p.f_pow(&temperature.f_reciprocal()?)?)?;
    let p = p.f_empty_like()?.f_scatter_(-1, &order, &p)?;
    let cumulative = p.f_cumsum(-1, Kind::Float)?;
    let at = uniform.f_unsqueeze(-1)?.f_mul(&cumulative.f_narrow(-1, CHARACTERS - 1, 1)?)?;
    let passed = cumulative.f_le_tensor(&at)?.f_sum_dim_intlist(-1, false, Kind::Int64)?.f_clamp_max(CHARACTERS - 1)?;
    let greedy = settings.f_select(1, 0)?.f_eq(1.0)?;
    let drawn = logits.f_argmax(-1, false)?.f_where_self(&greedy, &passed)?;
    fixed.f_where_self(&fixed.f_ge(0)?, &drawn)
}

pub(super) fn norm_step(
    x: &Tensor,
    delta: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    kind: Kind,
) -> Result<Tensor, TchError> {
    if let Some(delta) = delta {
        let _ = x.shallow_clone().f_add_(delta)?;
    }
    x.f_layer_norm(weight.size(), Some(weight), Some(bias), epsilon, true)?.f_to_kind(kind)
}

pub(super) fn add_norm(
    x: &Tensor,
    delta: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
) -> Result<(Tensor, Tensor), TchError> {
    let sum = x.f_add(delta)?;
    let norm = sum.f_layer_norm(weight.size(), Some(weight), Some(bias), epsilon, true)?;
    Ok((sum, norm))
}

fn divide(p: &Tensor) -> Result<Tensor, TchError> {
    p.f_div(&p.f_sum_dim_intlist(-1, true, Kind::Float)?)
}

fn normalise(p: &Tensor) -> Result<Tensor, TchError> {
    divide(&p.f_nan_to_num(0.0, None::<f64>, None::<f64>)?.f_clamp_min(0.0)?.f_add_scalar(EPSILON)?)
}
