//! The processes that train together, and what they exchange.
use crate::stream::{self, Purpose};
use crate::{Error, Result, Trainable};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tch::{Kind, Tensor};
use torch_ext::{ProcessGroup, Reduce};

/// Weights that are hashed together.
const HASH_BLOCK: u64 = 1 << 20;

/// The ranks of a training: this process alone, or the processes of a group, one a rank.
///
/// All ranks make the same calls in the same order. A call that waits for a peer which is gone fails within the group's
/// time-out.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    group: Option<Arc<ProcessGroup>>,
}

/// Two are equal when they are one group.
impl PartialEq for Ranks {
    fn eq(&self, other: &Ranks) -> bool {
        match (&self.group, &other.group) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Ranks {
    /// The ranks of a group.
    pub fn of(group: Arc<ProcessGroup>) -> Ranks {
        Ranks { group: Some(group) }
    }

    /// This process's number, counted from 0.
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.rank())
    }

    /// How many.
    pub fn size(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.size())
    }

    /// Whether this is rank 0, which writes files and talks to people.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    pub(crate) fn group(&self) -> Option<&Arc<ProcessGroup>> {
        self.group.as_ref()
    }

    /// This rank's shard of some things: a run of them. Shards are equal, or differ by one.
    pub fn shard<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let (rank, size) = (self.rank(), self.size());
        &all[all.len() * rank / size..all.len() * (rank + 1) / size]
    }

    /// Adds numbers up over the ranks, place by place.
    pub fn sum(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        let Some(group) = &self.group else { return Ok(numbers.to_vec()) };
        let tensor = Tensor::f_from_slice(numbers)?;
        group.all_reduce(&tensor, Reduce::Sum).map_err(Error::peer)?;
        Ok(Vec::try_from(tensor)?)
    }

    /// Whether it is true on any rank.
    pub fn any(&self, here: bool) -> Result<bool> {
        Ok(self.sum(&[f64::from(here)])?[0] > 0.0)
    }

    /// Waits until rank 0 is here too, as long as it lives: for work of rank 0 alone, which may take longer than the
    /// group's time-out.
    pub(crate) fn wait_for_first(&self) -> Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| group.wait_for_first().map_err(Error::peer))
    }

    /// Gives all ranks the text of rank 0; what the others pass does not count.
    pub fn broadcast_text(&self, text: &str) -> Result<String> {
        let Some(group) = &self.group else { return Ok(text.to_owned()) };
        let length = Tensor::f_from_slice(&[text.len() as i64])?;
        group.broadcast(std::slice::from_ref(&length), 0).map_err(Error::peer)?;
        let bytes = match self.is_first() {
            true => Tensor::f_from_slice(text.as_bytes())?,
            false => Tensor::f_zeros([length.f_int64_value(&[0])?], (Kind::Uint8, tch::Device::Cpu))?,
        };
        if bytes.numel() > 0 {
            group.broadcast(std::slice::from_ref(&bytes), 0).map_err(Error::peer)?;
        }
        Ok(String::from_utf8_lossy(&Vec::<u8>::try_from(bytes)?).into_owned())
    }

    /// Computes a number for each item, on each rank for its shard of them, and gives all numbers to all ranks.
    pub(crate) fn map_shards<T>(
        &self,
        items: &[T],
        numbers: impl FnOnce(&[T]) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let mine = self.shard(items);
        let before = items.len() * self.rank() / self.size();
        let mut all = vec![0.0; items.len()];
        if !mine.is_empty() {
            all[before..before + mine.len()].copy_from_slice(&numbers(mine)?);
        }
        self.sum(&all)
    }

    /// Overwrites tensors with those of a rank.
    pub(crate) fn broadcast(&self, tensors: &[Tensor], from: usize) -> Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| group.broadcast(tensors, from).map_err(Error::peer))
    }

    /// Refuses to go on when what a text says is not the same on all ranks.
    pub(crate) fn check_same(&self, what: &str, text: &str) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        match self.find_other(hasher.finish())? {
            None => Ok(()),
            Some(rank) => Err(Error::Config(format!("the {what} of rank {rank} are not those of rank 0"))),
        }
    }

    /// Refuses to go on when a network's weights are not those of rank 0, bit for bit.
    pub(crate) fn check_weights(&self, network: &impl Trainable) -> Result<()> {
        if self.group.is_none() {
            return Ok(());
        }
        match self.find_other(digest(network)?)? {
            None => Ok(()),
            Some(rank) => Err(Error::Internal(format!("the weights of rank {rank} are not those of rank 0"))),
        }
    }

    /// The first rank whose hash is not that of rank 0.
    fn find_other(&self, hash: u64) -> Result<Option<usize>> {
        let Some(group) = &self.group else { return Ok(None) };
        let all = group.all_gather(&Tensor::f_from_slice(&[hash as i64])?).map_err(Error::peer)?;
        let all = all.iter().map(|hash| hash.f_int64_value(&[0])).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(all.iter().position(|&hash| hash != all[0]))
    }
}

/// A hash of all bits of a network's weights, computed where they are.
///
/// Of each block the multilinear hash: each word times a random number of its own place, modulo 2⁶⁴ (Lemire and Kaser
/// 2014, arXiv 1202.4961). Integers add up to the same in any order, so that every device finds the same hash.
fn digest(network: &impl Trainable) -> Result<u64> {
    let _no_grad = tch::no_grad_guard();
    let keys: Vec<i64> = (0..HASH_BLOCK).map(|i| stream::seed(0, Purpose::Digest, [i, 0]) as i64).collect();
    let keys = Tensor::f_from_slice(&keys)?.f_to_device(network.device())?;
    let mut blocks = Vec::new();
    for (_, tensor) in network.state_dict() {
        let bits = match tensor.kind() {
            Kind::Float => Kind::Int,
            Kind::Half | Kind::BFloat16 => Kind::Int16,
            Kind::Double => Kind::Int64,
            other => other,
        };
        for block in tensor.f_contiguous()?.f_view_dtype(bits)?.f_view([-1])?.f_split(HASH_BLOCK as i64, 0)? {
            let keys = keys.f_narrow(0, 0, block.numel() as i64)?;
            blocks.push(block.f_to_kind(Kind::Int64)?.f_mul(&keys)?.f_sum(Kind::Int64)?);
        }
    }
    let mut hasher = DefaultHasher::new();
    Vec::<i64>::try_from(Tensor::f_stack(&blocks, 0)?)?.hash(&mut hasher);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_everything_is_mine() {
        let ranks = Ranks::default();
        assert_eq!((ranks.rank(), ranks.size(), ranks.is_first()), (0, 1, true));
        assert_eq!(ranks.shard(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(ranks.sum(&[1.5, 2.0]).unwrap(), [1.5, 2.0]);
        assert_eq!(
            ranks.map_shards(&[1.0, 2.0], |mine| Ok(mine.iter().map(|x| x * 2.0).collect())).unwrap(),
            [2.0, 4.0]
        );
        assert_eq!(ranks.broadcast_text("so").unwrap(), "so");
    }

    /// A network of one tensor of weights.
    struct Weights(Tensor);

    impl Trainable for Weights {
        fn device(&self) -> tch::Device {
            tch::Device::Cpu
        }

        fn parameters(&self) -> &[(String, Tensor)] {
            &[]
        }

        fn state_dict(&self) -> Vec<(String, Tensor)> {
            vec![("weights".to_owned(), self.0.shallow_clone())]
        }

        fn load(&self, _: &mut dyn FnMut(&str) -> Result<Option<Tensor>>) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn weights_with_the_same_sum_of_bits_have_other_digests() {
        let of = |weights: &[f32]| digest(&Weights(Tensor::from_slice(weights))).unwrap();
        let weights: Vec<f32> = (0..(HASH_BLOCK as usize + 10)).map(|i| i as f32).collect();
        let other = |change: &dyn Fn(&mut Vec<f32>)| {
            let mut other = weights.clone();
            change(&mut other);
            of(&other)
        };
        assert_eq!(of(&weights), other(&|_| ()));
        // Two of a block, two of different blocks, and one bit up here and down there.
        let last = weights.len() - 1;
        for (a, b) in [(3, 4), (3, last), (last - 1, last)] {
            assert_ne!(of(&weights), other(&|weights| weights.swap(a, b)));
        }
        let turned = |weights: &mut Vec<f32>| {
            weights[7] = f32::from_bits(weights[7].to_bits() + 1);
            weights[9] = f32::from_bits(weights[9].to_bits() - 1);
        };
        assert_ne!(of(&weights), other(&turned));
    }
}
