//! Batches, read and encoded ahead of the training by worker threads.
use crate::data::Dataset;
use crate::stream::{Purpose, stream};
use crate::{Error, Result};
use crossbeam::channel::{Receiver, bounded};
use model::Batch;
use rand::seq::{SliceRandom, index};
use std::sync::Arc;

/// Batches that each worker has ready at most.
const AHEAD: usize = 2;

/// The pieces of one optimizer step, in parts.
pub type Step = Vec<Batch>;

/// How an epoch is cut into steps.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Pieces of a step; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Parts of a step.
    pub parts: usize,
    /// Patches of each part that are predicted.
    pub patch_sampling: Option<usize>,
    /// Whether the order changes with the epoch.
    pub shuffle: bool,
    /// Seeds the order.
    pub seed: u64,
}

impl Plan {
    /// Steps of an epoch over `pieces`.
    pub fn steps(&self, pieces: usize) -> u64 {
        pieces.div_ceil(self.batch_size) as u64
    }

    /// The pieces of every step of an epoch.
    fn epoch(&self, pieces: usize, epoch: u64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..pieces).collect();
        if self.shuffle {
            order.shuffle(&mut stream(self.seed, Purpose::Order, [epoch, 0]));
        }
        order.chunks(self.batch_size).map(<[usize]>::to_vec).collect()
    }
}

/// The steps of an epoch in their order.
pub struct Loader {
    queues: Vec<Receiver<Result<Step>>>,
    next: usize,
    left: usize,
}

impl Loader {
    /// The steps of `epoch` from `first` on. Workers end when the loader is dropped.
    pub fn new(data: &Arc<Dataset>, plan: Plan, epoch: u64, first: u64, workers: usize, patch_length: i64) -> Loader {
        let steps: Arc<Vec<Vec<usize>>> = Arc::new(plan.epoch(data.len(), epoch).split_off(first as usize));
        let workers = workers.clamp(1, steps.len().max(1));
        let queues = (0..workers)
            .map(|worker| {
                let (send, receive) = bounded(AHEAD);
                let (data, steps) = (data.clone(), steps.clone());
                std::thread::spawn(move || {
                    for (i, pieces) in steps.iter().enumerate().skip(worker).step_by(workers) {
                        let step = load(&data, plan, epoch, first + i as u64, pieces, patch_length);
                        if send.send(step).is_err() {
                            return;
                        }
                    }
                });
                receive
            })
            .collect();
        Loader { queues, next: 0, left: steps.len() }
    }
}

impl Iterator for Loader {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        self.left = self.left.checked_sub(1)?;
        let queue = &self.queues[self.next];
        self.next = (self.next + 1) % self.queues.len();
        Some(queue.recv().unwrap_or_else(|_| Err(Error::Settings("a thread that reads pieces has ended".to_owned()))))
    }
}

fn load(data: &Dataset, plan: Plan, epoch: u64, step: u64, pieces: &[usize], patch_length: i64) -> Result<Step> {
    let mut parts = Vec::with_capacity(plan.parts);
    for (part, chunk) in pieces.chunks(pieces.len().div_ceil(plan.parts)).enumerate() {
        let patches = chunk.iter().map(|&i| data.piece(epoch, i)).collect::<Result<Vec<_>>>()?;
        let batch = match plan.patch_sampling {
            None => Batch::new(&patches, patch_length)?,
            Some(wanted) => {
                // Places of predicted patches, counted over the part's pieces.
                let starts: Vec<usize> = patches
                    .iter()
                    .scan(0, |total, piece| {
                        let start = *total;
                        *total += piece.len() - 1;
                        Some(start)
                    })
                    .collect();
                let total = patches.iter().map(|piece| piece.len() - 1).sum();
                let mut rng = stream(plan.seed, Purpose::Sampling, [epoch, step * plan.parts as u64 + part as u64]);
                let mut chosen = vec![false; total];
                for place in index::sample(&mut rng, total, wanted.min(total)) {
                    chosen[place] = true;
                }
                Batch::of_targets(&patches, patch_length, |p, place| chosen[starts[p] + place - 1])?
            }
        };
        parts.push(batch);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_in_an_epoch_once_and_epochs_differ() {
        let plan = Plan { batch_size: 4, parts: 2, patch_sampling: None, shuffle: true, seed: 3 };
        let epochs: Vec<Vec<usize>> = (0..2).map(|epoch| plan.epoch(10, epoch).concat()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(plan.steps(10), 3);
        assert_eq!(plan.epoch(10, 0), plan.epoch(10, 0));
    }
}
