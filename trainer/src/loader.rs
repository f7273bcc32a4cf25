//! Steps, read and encoded ahead of the training by worker threads.
use crate::stream::{Purpose, stream};
use crate::{Error, MicroBatch, MicroBatchId, Objective, Ranks, Result, Split};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use rand::seq::SliceRandom;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use tch::Device;

/// Steps that are read ahead for each worker.
const PREFETCH: usize = 3;

/// Steps whose examples are sorted by length together.
const STEPS_PER_BUCKET: usize = 64;

/// The micro-batches of one optimizer step.
pub type StepInput<I> = Vec<MicroBatch<I>>;

/// Steps over every example once, in an order that depends on (seed, epoch) alone. The last may be smaller.
pub fn shuffled(examples: usize, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples).collect();
    order.shuffle(&mut stream(seed, Purpose::Order, [epoch, 0]));
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Steps whose examples are of like length, over every example once, in an order that depends on (seed, epoch) alone. The
/// last may be smaller.
///
/// Examples are shuffled as by [`shuffled`], into buckets of many steps. A bucket is sorted by length and cut into steps.
/// The steps of all buckets are shuffled again, so that short and long ones alternate.
pub fn shuffled_by_length(lengths: &[u64], batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut order = shuffled(lengths.len(), batch_size * STEPS_PER_BUCKET, seed, epoch);
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

type Job = Box<dyn FnOnce() + Send>;

/// Threads that read and encode examples, for all epochs and evaluations of a training.
pub struct LoaderThreads {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// Where the examples go: for a CUDA device they are packed into pinned memory, which it reads by itself.
    device: Device,
    /// Why no memory can be pinned, and whether that was told.
    unpinned: Arc<OnceLock<String>>,
    told: Cell<bool>,
}

impl LoaderThreads {
    /// Starts so many threads, one at least.
    pub fn new(count: usize, device: Device) -> LoaderThreads {
        let (send, receive) = unbounded::<Job>();
        let work = |receive: Receiver<Job>| move || receive.iter().for_each(|job| job());
        let threads = (0..count.max(1)).map(|_| std::thread::spawn(work(receive.clone()))).collect();
        LoaderThreads { jobs: Some(send), threads, device, unpinned: Arc::default(), told: Cell::new(false) }
    }

    /// Why batches are copied while the device waits, if they are: told once.
    pub fn warning(&self) -> Option<String> {
        let error = self.unpinned.get().filter(|_| !self.told.replace(self.unpinned.get().is_some()))?;
        Some(format!("batches are copied to the device while it waits: no memory can be pinned for them ({error})"))
    }

    /// Runs a job on one of the threads. Its result comes through the channel, which closes if the thread panics.
    fn begin<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (send, receive) = bounded(1);
        if let Some(jobs) = &self.jobs {
            // No one waits for the jobs of a loader that is gone; without threads the channel closes.
            let _ = jobs.send(Box::new(move || drop(send.send(job()))));
        }
        receive
    }
}

impl Drop for LoaderThreads {
    /// Waits for the threads: one inside libtorch while the process ends would crash.
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // The loader has reported one that panicked, where its step was missing.
            let _ = thread.join();
        }
    }
}

/// The steps of an epoch in their order.
pub struct Loader<'a, O: Objective> {
    threads: &'a LoaderThreads,
    objective: Arc<O>,
    first: MicroBatchId,
    parts: usize,
    steps: VecDeque<Vec<usize>>,
    /// Steps that are being read, in their order.
    begun: VecDeque<Receiver<Result<StepInput<O::Input>>>>,
    /// Whether the loader is gone, and no one wants the steps any more.
    dropped: Arc<AtomicBool>,
    /// Examples of the steps, those of all ranks.
    sizes: Vec<usize>,
    given: usize,
}

impl<O: Objective> Drop for Loader<'_, O> {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

impl<'a, O: Objective> Loader<'a, O> {
    /// This rank's shard of the steps of an epoch from `first` on, each in `parts` micro-batches. A step may have none for
    /// it.
    pub fn train(
        threads: &'a LoaderThreads,
        objective: &Arc<O>,
        (epoch, first): (u64, u64),
        steps: &[Vec<usize>],
        ranks: &Ranks,
        parts: usize,
    ) -> Loader<'a, O> {
        let sizes = steps.iter().map(Vec::len).collect();
        let mine = steps.iter().map(|examples| ranks.shard(examples).to_vec()).collect();
        let first = MicroBatchId { split: Split::Train, epoch, step: first, index: (ranks.rank() * parts) as u64 };
        Loader::new(threads, objective, first, mine, sizes, parts)
    }

    /// The batches of an evaluation, dealt out to the ranks in turn: those of this rank.
    pub fn eval(threads: &'a LoaderThreads, objective: &Arc<O>, ranks: &Ranks) -> Loader<'a, O> {
        let id = MicroBatchId { split: Split::Eval, epoch: 0, step: 0, index: 0 };
        let batches = objective.evaluation();
        let mine: VecDeque<_> = batches.into_iter().skip(ranks.rank()).step_by(ranks.size()).collect();
        let sizes = mine.iter().map(Vec::len).collect();
        Loader::new(threads, objective, id, mine, sizes, 1)
    }

    fn new(
        threads: &'a LoaderThreads,
        objective: &Arc<O>,
        first: MicroBatchId,
        steps: VecDeque<Vec<usize>>,
        sizes: Vec<usize>,
        parts: usize,
    ) -> Loader<'a, O> {
        let (objective, begun, dropped) = (objective.clone(), VecDeque::new(), Arc::default());
        let mut loader = Loader { threads, objective, first, parts, steps, begun, dropped, sizes, given: 0 };
        for _ in 0..threads.threads.len() * PREFETCH {
            loader.begin();
        }
        loader
    }

    /// Begins to read the next step that is not read yet.
    fn begin(&mut self) {
        let Some(examples) = self.steps.pop_front() else { return };
        let id = MicroBatchId { step: self.first.step + (self.given + self.begun.len()) as u64, ..self.first };
        let (objective, dropped, parts) = (self.objective.clone(), self.dropped.clone(), self.parts);
        let unpinned = self.threads.device.is_cuda().then(|| self.threads.unpinned.clone());
        self.begun.push_back(self.threads.begin(move || match dropped.load(Ordering::Relaxed) {
            true => Ok(Vec::new()),
            false => load(&*objective, id, &examples, parts, unpinned.as_deref()),
        }));
    }

    /// Examples of the step given last, those of all ranks.
    pub fn examples(&self) -> usize {
        self.given.checked_sub(1).map_or(0, |last| self.sizes[last])
    }

    /// Whether the last step has been given.
    pub fn is_over(&self) -> bool {
        self.given == self.sizes.len()
    }
}

impl<O: Objective> Iterator for Loader<'_, O> {
    type Item = Result<StepInput<O::Input>>;

    fn next(&mut self) -> Option<Result<StepInput<O::Input>>> {
        let step = self.begun.pop_front()?;
        self.given += 1;
        self.begin();
        Some(step.recv().unwrap_or_else(|_| Err(Error::Internal("a thread that reads pieces has died".to_owned()))))
    }
}

fn load<O: Objective>(
    objective: &O,
    first: MicroBatchId,
    examples: &[usize],
    parts: usize,
    unpinned: Option<&OnceLock<String>>,
) -> Result<StepInput<O::Input>> {
    let chunks = examples.chunks(examples.len().div_ceil(parts).max(1)).enumerate();
    let load = |(i, chunk)| -> Result<MicroBatch<O::Input>> {
        let mut batch = objective.load(MicroBatchId { index: first.index + i as u64, ..first }, chunk)?;
        if let Some(unpinned) = unpinned
            && unpinned.get().is_none()
            && let Err(error) = torch_ext::pack(&mut O::tensors(&mut batch.input), true)
        {
            let _ = unpinned.set(error.to_string());
        }
        Ok(batch)
    };
    chunks.map(load).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_in_any_thread_and_what_is_missing_is_told_once() {
        let threads = LoaderThreads::new(2, Device::Cpu);
        let begun: Vec<_> = (0..20).map(|i| threads.begin(move || i * i)).collect();
        assert!(begun.iter().enumerate().all(|(i, job)| job.recv() == Ok(i * i)));
        assert_eq!(threads.warning(), None);
        threads.unpinned.set("no card".to_owned()).unwrap();
        assert!(threads.warning().is_some_and(|text| text.ends_with("(no card)")) && threads.warning().is_none());
    }

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
