//! Sequences of different lengths that share one tensor of shape (tokens, …) without padding, and attention inside them.
//!
//! On a CPU and in float32 sequences of one length attend together, run by run. On a card in 16 bits long sequences
//! (the patches of a piece) attend in one call of flash attention, whatever their lengths; short ones (the characters of a
//! patch), which would fill a small part of its tiles, by a kernel of our own or as a batch of equal sequences. Libtorch plans
//! each shape anew, so that one call of one shape is fastest.
use crate::architecture::HEAD_SIZE;
use tch::Tensor;
use torch_ext::kernels::{self, Kernel};
use torch_ext::{attends_to_sequences, attention_of_sequences, gather_rows};

/// From so many short sequences on, plain products are faster than libtorch's fused attention (docs/performance.md).
const MIN_SEQUENCES_FOR_PRODUCTS: i64 = 2048;
/// Products of longer sequences would fill the memory.
const MAX_LENGTH_FOR_PRODUCTS: i64 = 32;

pub(crate) type TorchResult = torch_ext::Result<Tensor>;

/// `rows` consecutive sequences of `len` tokens each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EqualRun {
    /// Sequences.
    pub(crate) rows: i64,
    /// Tokens in each.
    pub(crate) len: i64,
}

/// Sequences behind one another, and as many tokens behind them as round their number up.
#[derive(Debug)]
pub(crate) struct Sequences {
    /// The last are the tokens that round up, each on its own.
    runs: Vec<EqualRun>,
    tokens: i64,
    longest: i64,
    /// (sequences + 1), int32: where each begins, and the end. The tokens that round up are one sequence.
    starts: Tensor,
    padded: Option<Padded>,
}

/// Short sequences, padded to a batch of equal length.
#[derive(Debug)]
struct Padded {
    /// Sequences; the tokens that round up are cut into such, too.
    rows: i64,
    /// (rows * longest) and (tokens), int64: the token at each place, and the place of each token. A place behind the end
    /// of a sequence has the last token, which rounds up. Without them the tokens lie as they should.
    places: Option<(Tensor, Tensor)>,
}

/// Collects the lengths of sequences.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    runs: Vec<EqualRun>,
    tokens: i64,
}

impl Lengths {
    /// Appends one sequence of `len` tokens, to the last run where it has that length.
    pub(crate) fn push(&mut self, len: i64) {
        self.tokens += len;
        match self.runs.last_mut() {
            Some(last) if last.len == len => last.rows += 1,
            _ => self.runs.push(EqualRun { rows: 1, len }),
        }
    }

    /// Long sequences, such as patches, rounded up to a multiple.
    pub(crate) fn long(self, rounded_to: i64) -> Sequences {
        self.round(rounded_to, false)
    }

    /// Short sequences, such as characters, rounded up to a multiple.
    pub(crate) fn short(self, rounded_to: i64) -> Sequences {
        self.round(rounded_to, true)
    }

    fn round(self, rounded_to: i64, short: bool) -> Sequences {
        let Lengths { mut runs, tokens } = self;
        let longest = runs.iter().map(|run| run.len).max().unwrap_or(1);
        let alike = runs.iter().all(|run| run.len == longest);
        // Padding needs a token to copy.
        let least = tokens + i64::from(short && !alike);
        let rounded = (least + rounded_to - 1) / rounded_to * rounded_to;
        let mut starts = vec![0i32];
        let mut end = 0;
        for run in &runs {
            for _ in 0..run.rows {
                end += run.len;
                starts.push(end as i32);
            }
        }
        // One sequence of all of them, at most as long as the longest.
        while end < rounded {
            end = rounded.min(end + longest);
            starts.push(end as i32);
        }
        let padded = short.then(|| Padded::new(&starts, longest));
        runs.push(EqualRun { rows: rounded - tokens, len: 1 });
        Sequences { runs, tokens: rounded, longest, starts: Tensor::from_slice(&starts), padded }
    }
}

impl Padded {
    fn new(starts: &[i32], longest: i64) -> Padded {
        let (rows, last) = (starts.len() - 1, starts.last().map_or(0, |end| i64::from(*end) - 1));
        if rows as i64 * longest == last + 1 {
            return Padded { rows: rows as i64, places: None };
        }
        let (mut token_at, mut place_of) = (Vec::new(), Vec::new());
        for pair in starts.windows(2) {
            let (first, end) = (i64::from(pair[0]), i64::from(pair[1]));
            place_of.extend((0..end - first).map(|i| token_at.len() as i64 + i));
            token_at.extend((first..first + longest).map(|token| if token < end { token } else { last }));
        }
        Padded { rows: rows as i64, places: Some((Tensor::from_slice(&token_at), Tensor::from_slice(&place_of))) }
    }
}

impl Sequences {
    /// Tokens, rounded up.
    pub(crate) fn tokens(&self) -> i64 {
        self.tokens
    }

    /// Runs of sequences of one length, without the tokens that round up.
    pub(crate) fn equal_runs(&self) -> &[EqualRun] {
        &self.runs[..self.runs.len() - 1]
    }

    /// The lengths of the sequences, without what rounds up.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = i64> {
        self.equal_runs().iter().flat_map(|run| std::iter::repeat_n(run.len, run.rows as usize))
    }

    /// All tensors, to be moved to a device.
    pub(crate) fn tensors(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let places = self.padded.as_mut().and_then(|padded| padded.places.as_mut());
        std::iter::once(&mut self.starts).chain(places.into_iter().flat_map(|(tokens, places)| [tokens, places]))
    }

    /// Another handle of the same tensors.
    pub(crate) fn shallow_clone(&self) -> Sequences {
        let padded = self.padded.as_ref().map(|Padded { rows, places }| {
            let places = places.as_ref().map(|(tokens, places)| (tokens.shallow_clone(), places.shallow_clone()));
            Padded { rows: *rows, places }
        });
        let Sequences { runs, tokens, longest, starts, .. } = self;
        Sequences { runs: runs.clone(), tokens: *tokens, longest: *longest, starts: starts.shallow_clone(), padded }
    }

    /// Attention inside each sequence: (tokens, hidden) of queries, keys and values to (tokens, hidden). They may be parts of
    /// one tensor.
    pub(crate) fn attend(&self, qkv: [&Tensor; 3], dropout: f64, causal: bool) -> TorchResult {
        let hidden = qkv[0].size()[1];
        if attends_to_sequences(qkv[0].device(), qkv[0].kind()) {
            let heads = |x: &Tensor| x.f_unflatten(1, [-1, HEAD_SIZE]);
            let (q, k, v) = (heads(qkv[0])?, heads(qkv[1])?, heads(qkv[2])?);
            let attended = attention_of_sequences([&q, &k, &v], &self.starts, self.longest, dropout, causal)?;
            return Ok(attended.f_flatten(1, 2)?);
        }
        // There may be none to round up.
        let runs: Vec<&EqualRun> = self.runs.iter().filter(|g| g.rows > 0).collect();
        let sizes: Vec<i64> = runs.iter().map(|g| g.rows * g.len).collect();
        let split = |x: &Tensor| match runs.len() {
            1 => Ok(vec![x.shallow_clone()]),
            _ => x.f_split_with_sizes(&sizes, 0),
        };
        let (q, k, v) = (split(qkv[0])?, split(qkv[1])?, split(qkv[2])?);
        let mut out = Vec::with_capacity(runs.len());
        for (i, run) in runs.iter().enumerate() {
            let heads = |x: &Tensor| x.f_view([run.rows, run.len, -1, HEAD_SIZE])?.f_transpose(1, 2);
            let attended = sdpa(&heads(&q[i])?, &heads(&k[i])?, &heads(&v[i])?, dropout, causal)?;
            out.push(attended.f_transpose(1, 2)?.f_reshape([sizes[i], hidden])?);
        }
        Ok(if out.len() == 1 { out.remove(0) } else { Tensor::f_cat(&out, 0)? })
    }

    /// As [`Sequences::attend`], causal, of queries, keys and values beside one another, (tokens, 3 * hidden).
    pub(crate) fn attend_packed(&self, qkv: &Tensor, dropout: f64) -> TorchResult {
        let (device, kind) = (qkv.device(), qkv.kind());
        match &self.padded {
            Some(_) if self.longest <= kernels::LONGEST && kernels::is_own(Kernel::ShortAttention, device, kind) => {
                let heads = qkv.size()[1] / (3 * HEAD_SIZE);
                kernels::short_attention(qkv, &self.starts, heads, self.longest, dropout, true)
            }
            Some(padded) if attends_to_sequences(device, kind) => padded.attend(qkv, self.longest, dropout),
            _ => {
                let parts = qkv.f_unflatten(1, [3, -1])?.f_unbind(1)?;
                self.attend([&parts[0], &parts[1], &parts[2]], dropout, true)
            }
        }
    }
}

impl Padded {
    fn attend(&self, qkv: &Tensor, len: i64, dropout: f64) -> TorchResult {
        let filled = match &self.places {
            None => qkv.shallow_clone(),
            Some((token_at, place_of)) => gather_rows(qkv, token_at, place_of)?,
        };
        let heads = filled.f_view([self.rows, len, 3, -1, HEAD_SIZE])?.f_permute([2, 0, 3, 1, 4])?;
        let attended = match self.rows >= MIN_SEQUENCES_FOR_PRODUCTS && len <= MAX_LENGTH_FOR_PRODUCTS {
            true => {
                let heads = heads.f_contiguous()?.f_unbind(0)?;
                products(&heads[0], &heads[1], &heads[2], dropout)?
            }
            false => {
                let heads = heads.f_unbind(0)?;
                sdpa(&heads[0], &heads[1], &heads[2], dropout, true)?
            }
        };
        let attended = attended.f_transpose(1, 2)?.f_reshape([self.rows * len, -1])?;
        match &self.places {
            None => Ok(attended),
            // Behind the end of a sequence nothing is read, so that its gradient is zero: that of the last token's feature.
            Some((token_at, place_of)) => gather_rows(&attended, place_of, token_at),
        }
    }
}

fn sdpa(query: &Tensor, key: &Tensor, value: &Tensor, dropout: f64, causal: bool) -> TorchResult {
    Ok(Tensor::f_scaled_dot_product_attention::<Tensor>(query, key, value, None, dropout, causal, None, false)?)
}

/// Causal attention of (rows, heads, len, 64) by two products and a softmax.
fn products(query: &Tensor, key: &Tensor, value: &Tensor, dropout: f64) -> TorchResult {
    let size = query.size();
    let (batch, len) = (size[0] * size[1], size[2]);
    let flat = |x: &Tensor| x.f_view([batch, len, HEAD_SIZE]);
    let (query, key, value) = (flat(query)?, flat(key)?, flat(value)?);
    let later = Tensor::f_full([len, len], f64::NEG_INFINITY, (query.kind(), query.device()))?.f_triu(1)?;
    let scale = (HEAD_SIZE as f64).powf(-0.5);
    let scores = later.f_baddbmm(&query, &key.f_transpose(1, 2)?, 1.0, scale)?;
    // `softmax` would be computed on a float32 copy under autocast; this adds up in float32 all the same.
    let weights = scores.f_internal_softmax(-1, false)?.f_dropout(dropout, dropout > 0.0)?;
    Ok(weights.f_bmm(&value)?.f_view(size.as_slice())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn lengths(all: &[i64]) -> Lengths {
        let mut lengths = Lengths::default();
        all.iter().for_each(|&len| lengths.push(len));
        lengths
    }

    /// Values and gradients for the tokens that count.
    fn both(qkv: &Tensor, tokens: i64, f: impl Fn(&Tensor) -> Tensor) -> (Tensor, Tensor) {
        let qkv = qkv.copy().set_requires_grad(true);
        let out = f(&qkv).narrow(0, 0, tokens);
        let weights = Tensor::linspace(-1.0, 1.0, out.numel() as i64, (Kind::Float, Device::Cpu)).view_as(&out);
        (&out * weights).sum(Kind::Float).backward();
        (out.detach(), qkv.grad().narrow(0, 0, tokens))
    }

    #[test]
    fn short_sequences_as_equal_ones_are_the_same() {
        tch::manual_seed(0);
        let many: Vec<i64> = (0..MIN_SEQUENCES_FOR_PRODUCTS).map(|i| 1 + i % 5).collect();
        for all in [vec![2, 2, 3, 5, 1], vec![4; 64], vec![16, 16], many] {
            let sequences = lengths(&all).short(64);
            let (tokens, rounded) = (all.iter().sum::<i64>(), sequences.tokens());
            assert!(rounded % 64 == 0 && rounded >= tokens && rounded < tokens + 65);
            let qkv = Tensor::randn([rounded, 3 * 2 * HEAD_SIZE], (Kind::Float, Device::Cpu));
            let (expected, slope) = both(&qkv, tokens, |x| sequences.attend_packed(x, 0.0).unwrap());
            let padded = sequences.padded.as_ref().unwrap();
            let (found, found_slope) = both(&qkv, tokens, |x| padded.attend(x, sequences.longest, 0.0).unwrap());
            assert!(found.allclose(&expected, 1e-4, 1e-5, false), "{all:?}");
            assert!(found_slope.allclose(&slope, 1e-4, 1e-5, false), "{all:?}");
        }
    }

    #[test]
    fn sequences_know_where_they_begin_and_what_rounds_up() {
        let sequences = lengths(&[3, 3, 2]).long(32);
        assert_eq!(sequences.equal_runs(), [EqualRun { rows: 2, len: 3 }, EqualRun { rows: 1, len: 2 }]);
        assert_eq!(sequences.lengths().collect::<Vec<_>>(), [3, 3, 2]);
        let starts = Vec::<i32>::try_from(&sequences.starts).unwrap();
        assert_eq!(starts, [0, 3, 6, 8, 11, 14, 17, 20, 23, 26, 29, 32]);
        assert!(lengths(&[16, 16]).short(32).padded.unwrap().places.is_none());
    }
}
