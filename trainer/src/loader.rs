//! Steps, read and encoded ahead of the training by worker threads.
use crate::objective::{Objective, Part, Place, Set};
use crate::ranks::Ranks;
use crate::stream::{Purpose, stream};
use crate::{Error, Result};
use crossbeam::channel::{Receiver, bounded};
use rand::seq::SliceRandom;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Steps that each worker has ready at most.
const AHEAD: usize = 2;

/// One optimizer step, in parts.
pub type Step<I> = Vec<Part<I>>;

/// Steps over every example once, in an order that depends on (seed, epoch) alone. The last may be smaller.
pub fn shuffled(examples: usize, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples).collect();
    order.shuffle(&mut stream(seed, Purpose::Order, [epoch, 0]));
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Batches over every example once, in their own order.
pub fn in_order(examples: usize, batch_size: usize) -> Vec<Vec<usize>> {
    let order: Vec<usize> = (0..examples).collect();
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// The steps of an epoch in their order.
pub struct Loader<I> {
    queues: Vec<Receiver<Result<Step<I>>>>,
    /// Examples of the steps, those of all ranks.
    sizes: Vec<usize>,
    given: usize,
    workers: Vec<JoinHandle<()>>,
}

impl<I> Drop for Loader<I> {
    /// Waits for the workers: one inside libtorch while the process ends would crash.
    fn drop(&mut self) {
        // Without a receiver a worker ends after the step that it reads.
        self.queues.clear();
        for worker in self.workers.drain(..) {
            // One that panicked has been told where its steps were missing.
            let _ = worker.join();
        }
    }
}

impl<I> Loader<I> {
    /// Examples of the step given last, those of all ranks.
    pub fn examples(&self) -> usize {
        self.given.checked_sub(1).map_or(0, |last| self.sizes[last])
    }

    /// Whether the last step has been given.
    pub fn is_over(&self) -> bool {
        self.given == self.sizes.len()
    }
}

impl<I: Send + 'static> Loader<I> {
    /// A rank's share of the steps of an epoch from `first` on, each in `parts`; a step may have none for it. Workers end
    /// when the loader is dropped.
    pub fn train<O>(
        objective: &Arc<O>,
        (epoch, first): (u64, u64),
        steps: &[Vec<usize>],
        ranks: &Ranks,
        parts: usize,
        workers: usize,
    ) -> Loader<I>
    where
        O: Objective<Input = I>,
    {
        let sizes = steps.iter().map(Vec::len).collect();
        let mine = steps.iter().map(|examples| ranks.share(examples).to_vec()).collect();
        let part = (ranks.rank() * parts) as u64;
        Loader::new(objective, Place { set: Set::Train, epoch, step: first, part }, mine, sizes, parts, workers)
    }

    /// A rank's share of the batches of an evaluation.
    pub fn eval<O: Objective<Input = I>>(objective: &Arc<O>, ranks: &Ranks, workers: usize) -> Loader<I> {
        let place = Place { set: Set::Eval, epoch: 0, step: 0, part: 0 };
        let batches = objective.evaluation();
        let mine: Vec<_> = batches.into_iter().skip(ranks.rank()).step_by(ranks.size()).collect();
        let sizes = mine.iter().map(Vec::len).collect();
        Loader::new(objective, place, mine, sizes, 1, workers)
    }

    fn new<O>(
        objective: &Arc<O>,
        first: Place,
        steps: Vec<Vec<usize>>,
        sizes: Vec<usize>,
        parts: usize,
        workers: usize,
    ) -> Loader<I>
    where
        O: Objective<Input = I>,
    {
        let steps = Arc::new(steps);
        let count = workers.clamp(1, steps.len().max(1));
        let (queues, workers) = (0..count)
            .map(|worker| {
                let (send, receive) = bounded(AHEAD);
                let (objective, steps) = (objective.clone(), steps.clone());
                let thread = std::thread::spawn(move || {
                    for (i, examples) in steps.iter().enumerate().skip(worker).step_by(count) {
                        let place = Place { step: first.step + i as u64, ..first };
                        if send.send(load(&*objective, place, examples, parts)).is_err() {
                            return;
                        }
                    }
                });
                (receive, thread)
            })
            .unzip();
        Loader { queues, sizes, given: 0, workers }
    }
}

impl<I> Iterator for Loader<I> {
    type Item = Result<Step<I>>;

    fn next(&mut self) -> Option<Result<Step<I>>> {
        if self.is_over() {
            return None;
        }
        let queue = &self.queues[self.given % self.queues.len()];
        self.given += 1;
        Some(queue.recv().unwrap_or_else(|_| Err(Error::Settings("a thread that reads pieces has ended".to_owned()))))
    }
}

fn load<O: Objective>(objective: &O, step: Place, examples: &[usize], parts: usize) -> Result<Step<O::Input>> {
    let chunks = examples.chunks(examples.len().div_ceil(parts).max(1)).enumerate();
    chunks.map(|(part, chunk)| objective.load(Place { part: step.part + part as u64, ..step }, chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_in_an_epoch_once_and_epochs_differ() {
        let epochs: Vec<Vec<usize>> = (0..2).map(|epoch| shuffled(10, 4, 3, epoch).concat()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(shuffled(10, 4, 3, 0).len(), 3);
        assert_eq!(shuffled(10, 4, 3, 0).concat(), epochs[0]);
        assert_eq!(in_order(5, 2), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}
