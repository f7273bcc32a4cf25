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

/// Steps whose examples are sorted by length together.
const STEPS_OF_A_BUCKET: usize = 64;

/// One optimizer step, in parts.
pub type Step<I> = Vec<Part<I>>;

/// Steps over every example once, in an order that depends on (seed, epoch) alone. The last may be smaller.
pub fn shuffled(examples: usize, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples).collect();
    order.shuffle(&mut stream(seed, Purpose::Order, [epoch, 0]));
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Steps whose examples are of like length, over every example once, in an order that depends on (seed, epoch) alone. The
/// last may be smaller.
///
/// Examples are drawn as by [`shuffled`], into buckets of many steps; within a bucket they are put together by length, and
/// the steps of all buckets are drawn again, so that short and long ones alternate.
pub fn shuffled_by_length(lengths: &[u64], batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut order = shuffled(lengths.len(), batch_size * STEPS_OF_A_BUCKET, seed, epoch);
    for bucket in &mut order {
        bucket.sort_by_key(|&example| lengths[example]);
    }
    let mut steps: Vec<Vec<usize>> =
        order.iter().flat_map(|bucket| bucket.chunks(batch_size)).map(<[usize]>::to_vec).collect();
    let whole = steps.partition_point(|step| step.len() == batch_size);
    steps[..whole].shuffle(&mut stream(seed, Purpose::Order, [epoch, 1]));
    steps
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
    fn steps_by_length_hold_examples_of_like_length_each_once_and_the_smaller_one_last() {
        // Two buckets and a half, of pieces of 0 to 996 patches.
        let lengths: Vec<u64> = (0..643).map(|i| i * 7919 % 997).collect();
        let epochs: Vec<Vec<Vec<usize>>> = (0..2).map(|epoch| shuffled_by_length(&lengths, 4, 3, epoch)).collect();
        for steps in &epochs {
            let mut all = steps.concat();
            all.sort_unstable();
            assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            assert!(steps[..160].iter().all(|step| step.len() == 4) && steps[160].len() == 3);
            let spread = |step: &Vec<usize>| {
                let of = || step.iter().map(|&example| lengths[example]);
                of().max().unwrap() - of().min().unwrap()
            };
            let mean = |steps: &[Vec<usize>]| steps.iter().map(spread).sum::<u64>() / steps.len() as u64;
            assert!(mean(steps) < 40, "{}", mean(steps));
            assert!(mean(&shuffled(lengths.len(), 4, 3, 0)) > 400);
            // Short and long ones alternate.
            let first = |step: &Vec<usize>| lengths[step[0]];
            assert!(steps.windows(2).filter(|pair| first(&pair[0]) < first(&pair[1])).count() < 110);
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(epochs[0], shuffled_by_length(&lengths, 4, 3, 0));
    }

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
