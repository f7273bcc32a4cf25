//! The processes that a training is spread over.
use crate::objective::Network;
use crate::{Error, Result};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tch::{Kind, Tensor};
use torch_ext::{ProcessGroup, Reduce};

/// The ranks of a training: this process alone, or the processes of a group, one a rank. All ranks make the same calls in
/// the same order; those that wait for others are errors within the group's time-out when a peer is gone.
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

    /// Whether this is the one that writes files and talks to people.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    pub(crate) fn group(&self) -> Option<&Arc<ProcessGroup>> {
        self.group.as_ref()
    }

    /// This rank's share of some things: equal runs of them, or such that differ by one.
    pub fn share<'a, T>(&self, all: &'a [T]) -> &'a [T] {
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

    /// Whether it is so on any rank.
    pub fn any(&self, here: bool) -> Result<bool> {
        Ok(self.sum(&[f64::from(here)])?[0] > 0.0)
    }

    /// Tells all ranks what rank 0 knows; what the others pass does not count.
    pub fn tell(&self, text: &str) -> Result<String> {
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

    /// Computes a number for each item, the items dealt over the ranks in their order, and gives all of them to all.
    pub(crate) fn deal<T>(&self, items: &[T], numbers: impl FnOnce(&[T]) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
        let mine = self.share(items);
        let before = items.len() * self.rank() / self.size();
        let mut all = vec![0.0; items.len()];
        if !mine.is_empty() {
            all[before..before + mine.len()].copy_from_slice(&numbers(mine)?);
        }
        self.sum(&all)
    }

    /// Overwrites tensors with those of a rank.
    pub(crate) fn spread(&self, tensors: &[Tensor], from: usize) -> Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| group.broadcast(tensors, from).map_err(Error::peer))
    }

    /// Refuses to go on when what a text says is not the same on all ranks.
    pub(crate) fn check_same(&self, what: &str, text: &str) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.check_hash(what, hasher.finish())
    }

    /// Refuses to go on when a network's weights are not those of rank 0, bit for bit.
    pub(crate) fn check_weights(&self, network: &impl Network) -> Result<()> {
        if self.group.is_none() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let mut hasher = DefaultHasher::new();
        for (_, tensor) in network.state_dict() {
            // Sums of integers do not depend on their order.
            let bits = match tensor.kind() {
                Kind::Float => Kind::Int,
                Kind::Half | Kind::BFloat16 => Kind::Int16,
                Kind::Double => Kind::Int64,
                other => other,
            };
            tensor.f_view_dtype(bits)?.f_sum(Kind::Int64)?.f_int64_value(&[])?.hash(&mut hasher);
        }
        self.check_hash("weights", hasher.finish())
    }

    fn check_hash(&self, what: &str, hash: u64) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let all = group.all_gather(&Tensor::f_from_slice(&[hash as i64])?).map_err(Error::peer)?;
        let all = all.iter().map(|hash| hash.f_int64_value(&[0])).collect::<std::result::Result<Vec<_>, _>>()?;
        match all.iter().position(|&hash| hash != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::Settings(format!("the {what} of rank {rank} are not those of rank 0"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_everything_is_mine() {
        let ranks = Ranks::default();
        assert_eq!((ranks.rank(), ranks.size(), ranks.is_first()), (0, 1, true));
        assert_eq!(ranks.share(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(ranks.sum(&[1.5, 2.0]).unwrap(), [1.5, 2.0]);
        assert_eq!(ranks.deal(&[1.0, 2.0], |mine| Ok(mine.iter().map(|x| x * 2.0).collect())).unwrap(), [2.0, 4.0]);
        assert_eq!(ranks.tell("so").unwrap(), "so");
    }
}
