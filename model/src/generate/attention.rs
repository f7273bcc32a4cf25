//! Keys and values kept, and what attends to them.
use crate::Result;
use crate::architecture::HEAD_SIZE;
use tch::{Device, Kind, Tensor};
use torch_ext::kernels::{self, Kernel};

/// Patches for one slot to read, at least one.
pub(super) struct UnreadPatches {
    pub(super) slot: usize,
    /// Patches that its cache holds.
    pub(super) start: usize,
    pub(super) characters: Vec<u8>,
}

impl UnreadPatches {
    pub(super) fn patches(&self, size: usize) -> usize {
        self.characters.len() / size
    }
}

/// Keys and values of one layer: (slots, 2, heads, positions, 64).
pub(super) fn caches(layers: usize, [slots, heads, positions]: [i64; 3], of: (Kind, Device)) -> Result<Vec<Tensor>> {
    let zeros = |_| Ok(Tensor::f_zeros([slots, 2, heads, positions, HEAD_SIZE], of)?);
    (0..layers).map(zeros).collect()
}

/// Where new keys and values go, and how far each row attends.
pub(super) enum CachePosition<'a> {
    /// Every row at this one; `positions` (rows), int64, has it for each.
    Same(i64, &'a Tensor),
    /// Row i at `positions[i]`.
    Each {
        /// (rows), int64: 0, 1, 2 and so on.
        rows: &'a Tensor,
        /// (rows), int64.
        positions: &'a Tensor,
        /// (rows, 1, 1, keys), in the cache's kind: -inf behind a row's position.
        mask: &'a Tensor,
    },
}

/// Appends a key and a value a row, and attends by one query a row: `qkv` (rows, 3 * hidden) to (rows, hidden).
///
/// Row i of the batch is row i of `cache`, (slots, 2, heads, positions, 64). Read are the first `keys` positions, of them those
/// up to the row's own. Nothing is asked of the host: the work can be recorded. Without our own kernel these are fewer launches
/// than [`kernels::append_attend`]'s, which the kernel is checked against and which also knows idle rows.
pub(super) fn append_attend(qkv: &Tensor, cache: &Tensor, at: &CachePosition, keys: i64) -> Result<Tensor> {
    let rows = qkv.size()[0];
    if kernels::is_own(Kernel::AppendAttend, qkv.device(), qkv.kind()) {
        let (CachePosition::Same(_, positions) | CachePosition::Each { positions, .. }) = at;
        let (keys, values) = (cache.f_select(1, 0)?, cache.f_select(1, 1)?);
        return Ok(kernels::append_attend(qkv, &keys, &values, positions)?);
    }
    let heads = qkv.f_view([rows, 3, -1, HEAD_SIZE])?;
    let new = heads.f_narrow(1, 1, 2)?;
    let mut cache = cache.f_narrow(0, 0, rows)?;
    let mask = match at {
        CachePosition::Same(place, _) => {
            cache.f_select(3, *place)?.f_copy_(&new)?;
            None
        }
        CachePosition::Each { rows, positions, mask } => {
            let _ = cache.f_index_put_(&[Some(*rows), None, None, Some(*positions)], &new, false)?;
            Some(*mask)
        }
    };
    let cache = cache.f_narrow(3, 0, keys)?;
    let query = heads.f_select(1, 0)?.f_unsqueeze(2)?;
    Ok(attend(&query, &cache, mask, false)?.f_reshape([rows, -1])?)
}

/// Queries (rows, heads, n, 64) to all of `cache`, (rows, 2, heads, keys, 64).
fn attend(query: &Tensor, cache: &Tensor, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
    let (keys, values) = (cache.f_select(1, 0)?, cache.f_select(1, 1)?);
    Ok(Tensor::f_scaled_dot_product_attention(query, &keys, &values, mask, 0.0, causal, None, false)?)
}

/// Who attends to what in one reading, the same for every layer: tokens of new patches one after the other.
pub(super) struct AttentionPlan(Vec<Run>);

struct Run {
    token: i64,
    slot: i64,
    /// Neighbouring slots of the same length that attend in one call.
    slots: i64,
    start: i64,
    len: i64,
    mask: Option<Tensor>,
}

impl AttentionPlan {
    pub(super) fn new(readings: &[UnreadPatches], size: usize, device: Device) -> Result<AttentionPlan> {
        let mut runs: Vec<Run> = Vec::new();
        let mut token = 0;
        for reading in readings {
            let (slot, start) = (reading.slot as i64, reading.start as i64);
            let len = reading.patches(size) as i64;
            if let Some(run) = runs.last_mut().filter(|run| {
                (run.start, run.len) == (start, len)
                    && run.slot + run.slots == slot
                    && run.token + run.slots * len == token
            }) {
                run.slots += 1;
            } else {
                let mask = if start > 0 && len > 1 {
                    Some(Tensor::f_ones([len, start + len], (Kind::Bool, device))?.f_tril(start)?)
                } else {
                    None
                };
                runs.push(Run { token, slot, slots: 1, start, len, mask });
            }
            token += len;
        }
        Ok(AttentionPlan(runs))
    }

    /// Queries (tokens, heads, 64) to what they attend to, (tokens, hidden).
    pub(super) fn attend(&self, query: &Tensor, cache: &Tensor) -> Result<Tensor> {
        let (tokens, heads, _) = query.size3()?;
        let out = Tensor::f_empty([tokens, heads * HEAD_SIZE], (query.kind(), query.device()))?;
        for run in &self.0 {
            let n = run.slots * run.len;
            let query = query.f_narrow(0, run.token, n)?.f_view([run.slots, run.len, heads, HEAD_SIZE])?;
            let cache = cache.f_narrow(0, run.slot, run.slots)?.f_narrow(3, 0, run.start + run.len)?;
            let causal = run.len > 1 && run.mask.is_none();
            let attended = attend(&query.f_transpose(1, 2)?, &cache, run.mask.as_ref(), causal)?;
            let attended = attended.f_transpose(1, 2)?.f_reshape([n, heads * HEAD_SIZE])?;
            out.f_narrow(0, run.token, n)?.f_copy_(&attended)?;
        }
        Ok(out)
    }
}
