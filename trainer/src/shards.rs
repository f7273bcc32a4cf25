//! The optimizer's state in shards (ZeRO-1): one rank keeps a parameter's moments, takes its steps, and broadcasts the new
//! weights.
use crate::{Ranks, Result};
use std::cmp::Reverse;
use tch::Tensor;

/// Which rank keeps the state of which parameter.
#[derive(Debug)]
pub(crate) struct Shards {
    ranks: Ranks,
    owners: Vec<usize>,
}

impl Shards {
    /// The largest parameters first, each to the rank that has the least so far: the same on all ranks.
    pub(crate) fn new(params: &[Tensor], ranks: &Ranks) -> Shards {
        Shards {
            owners: assign(&params.iter().map(Tensor::numel).collect::<Vec<_>>(), ranks.size()),
            ranks: ranks.clone(),
        }
    }

    /// The ranks that keep the state.
    pub(crate) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The rank that keeps a parameter's state.
    pub(crate) fn owner(&self, param: usize) -> usize {
        self.owners[param]
    }

    /// Whether that is this rank.
    pub(crate) fn is_mine(&self, param: usize) -> bool {
        self.owner(param) == self.ranks.rank()
    }

    /// Of a list with one tensor for each parameter, those of a rank's parameters.
    fn of(&self, rank: usize, all: &[Tensor]) -> Vec<Tensor> {
        let of = all.iter().zip(&self.owners).filter(|(_, owner)| **owner == rank);
        of.map(|(tensor, _)| tensor.shallow_clone()).collect()
    }

    /// Of a list with one tensor for each parameter, those of this rank's parameters.
    pub(crate) fn mine(&self, all: &[Tensor]) -> Vec<Tensor> {
        self.of(self.ranks.rank(), all)
    }

    /// Overwrites each parameter with that of its owner.
    pub(crate) fn broadcast(&self, params: &[Tensor]) -> Result<()> {
        (0..self.ranks.size()).try_for_each(|rank| self.ranks.broadcast(&self.of(rank, params), rank))
    }
}

/// The owner of each parameter.
fn assign(sizes: &[usize], ranks: usize) -> Vec<usize> {
    let (mut owners, mut held) = (vec![0; sizes.len()], vec![0; ranks]);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&param| Reverse(sizes[param]));
    for param in order {
        let owner = (0..ranks).min_by_key(|&rank| held[rank]).unwrap_or(0);
        owners[param] = owner;
        held[owner] += sizes[param];
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_keeps_about_as_much() {
        assert_eq!(assign(&[1, 8, 3, 4, 1], 2), [1, 0, 1, 1, 0]);
        assert_eq!(assign(&[5, 5], 3), [0, 1]);
        assert_eq!(assign(&[5, 5], 1), [0, 0]);
    }
}
