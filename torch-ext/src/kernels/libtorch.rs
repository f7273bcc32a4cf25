//! What the kernels compute, by libtorch's. Nothing waits for the device.
use super::api::{CHARACTERS, HEAD_SIZE};
use tch::{Kind, TchError, Tensor};

/// One over the root of the head size.
const SCALE: f64 = 0.125;
/// Added to every probability before each step, as the original does.
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

/// [`super::DrawSettings`] as libtorch's operators take them.
pub(super) struct DrawColumns {
    /// (rows, 128), bool: which of the characters in falling order of probability top-k drops.
    dropped: Tensor,
    /// (rows, 128), float32: what [`EPSILON`] leaves of each of them before top-p, added once and for those kept twice.
    least: Tensor,
    /// (rows, 1), float32.
    top_p: Tensor,
    /// (rows, 1), float32: one over the temperature.
    exponent: Tensor,
}

impl DrawColumns {
    pub(super) fn new(rows: &Tensor) -> Result<DrawColumns, TchError> {
        let column = |i: i64| rows.f_narrow(1, i, 1)?.f_contiguous();
        let ranks = Tensor::f_arange(CHARACTERS, (Kind::Float, rows.device()))?;
        let dropped = ranks.f_ge_tensor(&column(0)?)?;
        let least = Tensor::f_full(dropped.size(), 2.0 * EPSILON, (Kind::Float, rows.device()))?;
        let least = least.f_masked_fill(&dropped, EPSILON)?;
        Ok(DrawColumns { dropped, least, top_p: column(1)?, exponent: column(2)? })
    }

    /// Logits (rows, 128) to what characters are drawn in proportion to, float32: `model::Sampling::distribution` without the
    /// steps that change nothing in float32 (dividing by a sum of 1 + 128e-12, say) and without its last division.
    pub(super) fn weights(&self, logits: &Tensor) -> Result<Tensor, TchError> {
        let rest = CHARACTERS - 1;
        let (mut sorted, order) = logits.f_sort(-1, true)?;
        let _ = sorted.f_masked_fill_(&self.dropped, f64::NEG_INFINITY)?;
        let mut p = sorted.f_softmax(-1, Kind::Float)?.f_add_(&self.least)?;
        let before = p.f_cumsum(-1, Kind::Float)?.f_narrow(-1, 0, rest)?;
        let _ = p.f_narrow(-1, 1, rest)?.f_masked_fill_(&before.f_gt_tensor(&self.top_p)?, 0.0)?;
        let total = p.f_sum_dim_intlist(-1, true, Kind::Float)?;
        let _ = p.f_div_(&total)?.f_add_scalar_(EPSILON)?.f_pow_tensor_(&self.exponent)?;
        p.f_empty_like()?.f_scatter_(-1, &order, &p)
    }
}

/// The rows' characters: `fixed` where it is not negative.
pub(super) fn draw(
    logits: &Tensor,
    uniform: &Tensor,
    columns: &DrawColumns,
    fixed: &Tensor,
) -> Result<Tensor, TchError> {
    let rest = CHARACTERS - 1;
    let cumulative = columns.weights(logits)?.f_cumsum(-1, Kind::Float)?;
    let at = cumulative.f_narrow(-1, rest, 1)?.f_mul(&uniform.f_unsqueeze(-1)?)?;
    let passed = cumulative.f_narrow(-1, 0, rest)?.f_le_tensor(&at)?;
    let drawn = passed.f_sum_dim_intlist(-1, false, Kind::Int64)?;
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
