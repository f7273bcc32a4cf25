//! Attention inside sequences of different lengths that lie behind one another, without padding: flash attention (Dao 2023,
//! arXiv 2307.08691) as libtorch has it for cards.
use crate::Result;
use crate::device::card;
use crate::ffi::{check, new_tensor, ptr, te_attention_of_sequences, te_flash_on_cpu, te_gather_rows};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};

/// Cards of one machine, at most.
const MOST_CARDS: usize = 64;

static ON_CPU: AtomicBool = AtomicBool::new(false);

/// Whether [`attention_of_sequences`] can be used: on cards of compute capability 8.0 or more, in 16 bits.
pub fn attends_to_sequences(device: Device, kind: Kind) -> bool {
    static CARDS: [OnceLock<bool>; MOST_CARDS] = [const { OnceLock::new() }; MOST_CARDS];
    let able = |index: usize| {
        let known = CARDS.get(index)?;
        Some(*known.get_or_init(|| card(index).is_ok_and(|card| card.capability >= (8, 0))))
    };
    matches!(kind, Kind::Half | Kind::BFloat16)
        && match device {
            Device::Cpu => ON_CPU.load(Ordering::Relaxed),
            Device::Cuda(index) => able(index).unwrap_or(false),
            _ => false,
        }
}

/// Attention inside each sequence; with a derivative.
///
/// `query`, `key` and `value` are (tokens, heads, head size) in 16 bits, with neighbouring elements of a head beside each
/// other. `starts` is (sequences + 1) in int32: where each sequence begins, and the end. `longest` is the length of the
/// longest one. Gives (tokens, heads, head size). `dropout` is the probability of leaving a weight out.
pub fn attention_of_sequences(
    [query, key, value]: [&Tensor; 3],
    starts: &Tensor,
    longest: i64,
    dropout: f64,
    causal: bool,
) -> Result<Tensor> {
    // SAFETY: four live tensors, whose kinds and shapes libtorch checks; it hands out a new one.
    new_tensor(|out| unsafe {
        te_attention_of_sequences(ptr(query), ptr(key), ptr(value), ptr(starts), longest, dropout, causal.into(), out)
    })
}

/// The rows of `input` with these numbers. The derivative does not add up copies of a row: `back` has, for each row of the
/// input, the place of the one copy whose gradient counts. Other copies must have a gradient of zero.
pub fn gather_rows(input: &Tensor, rows: &Tensor, back: &Tensor) -> Result<Tensor> {
    if input.size().first() != back.size().first() {
        return Err(error!(Argument, "{:?} rows, {:?} places of them", input.size(), back.size()));
    }
    // SAFETY: three live tensors; libtorch checks the numbers against the rows.
    new_tensor(|out| unsafe { te_gather_rows(ptr(input), ptr(rows), ptr(back), out) })
}

/// From here on a CPU attends to sequences too, slowly and without dropout, so that tests can run what a card runs.
pub fn attend_to_sequences_on_cpu() -> Result<()> {
    // SAFETY: no arguments; a second call changes nothing.
    check(unsafe { te_flash_on_cpu() })?;
    ON_CPU.store(true, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_behind_one_another_are_as_each_alone() {
        attend_to_sequences_on_cpu().unwrap();
        assert!(!attends_to_sequences(Device::Cpu, Kind::Float));
        assert!(attends_to_sequences(Device::Cpu, Kind::BFloat16));
        tch::manual_seed(1);
        let qkv = Tensor::randn([12, 3, 2, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let weights = Tensor::randn([12, 2, 8], (Kind::Float, Device::Cpu));
        let halved = qkv.to_kind(Kind::Half).unbind(1);
        let starts = Tensor::from_slice(&[0i32, 3, 4, 12]);
        for causal in [false, true] {
            let out = attention_of_sequences([&halved[0], &halved[1], &halved[2]], &starts, 8, 0.0, causal).unwrap();
            (out.to_kind(Kind::Float) * &weights).sum(Kind::Float).backward();
            let grad = qkv.grad().copy();
            let _ = qkv.grad().zero_();
            let whole = qkv.unbind(1);
            let mut parts = Vec::new();
            for (first, len) in [(0, 3), (3, 1), (4, 8)] {
                let heads: Vec<Tensor> = whole.iter().map(|x| x.narrow(0, first, len).transpose(0, 1)).collect();
                let none = None::<&Tensor>;
                let attended = Tensor::scaled_dot_product_attention(
                    &heads[0], &heads[1], &heads[2], none, 0.0, causal, None, false,
                );
                parts.push(attended.transpose(0, 1));
            }
            let exact = Tensor::cat(&parts, 0);
            (&exact * &weights).sum(Kind::Float).backward();
            assert!(out.to_kind(Kind::Float).allclose(&exact, 1e-2, 1e-2, false));
            assert!(grad.allclose(&qkv.grad(), 1e-2, 1e-2, false));
            let _ = qkv.grad().zero_();
        }
    }

    #[test]
    fn gathered_rows_give_their_gradients_back() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0]).view([3, 1]).set_requires_grad(true);
        let rows = Tensor::from_slice(&[2i64, 0, 2, 1]);
        let back = Tensor::from_slice(&[1i64, 3, 0]);
        let y = gather_rows(&x, &rows, &back).unwrap();
        assert_eq!(Vec::<f32>::try_from(y.view([-1])).unwrap(), [3.0, 1.0, 3.0, 2.0]);
        (y * Tensor::from_slice(&[5.0f32, 6.0, 0.0, 7.0]).view([4, 1])).sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad().view([-1])).unwrap(), [6.0, 7.0, 5.0]);
        assert!(gather_rows(&x, &rows, &rows).is_err());
    }
}
