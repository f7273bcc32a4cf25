//! A training spread over ranks is the training of one process. The ranks are threads here.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{golden, network, pieces, settings};
use model::{Batch, Mode};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use torch_ext::{JoinOptions, ProcessGroup, StoreServer, World};
use trainer::{
    Dtype, ErrorKind, Loss, MicroBatch, MicroBatchId, Objective, Observer, Optimizer, Outcome, Ranks, Result, Settings,
    Split, TrainEvent, TrainReport, Trainable, Workload, in_order, language, run_step, shuffled, train,
};

/// Runs `work` on every rank and returns what they give, by rank.
fn ranks<T: Send + 'static>(size: usize, work: impl Fn(Ranks) -> T + Send + Sync + 'static) -> Vec<T> {
    let server = StoreServer::start().unwrap();
    let (port, work) = (server.port(), Arc::new(work));
    let start = |rank| {
        let work = work.clone();
        thread::spawn(move || work(join(port, rank, size, Duration::from_secs(300))))
    };
    let threads: Vec<_> = (0..size).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn join(port: u16, rank: usize, size: usize, timeout: Duration) -> Ranks {
    let (host, prefix) = ("127.0.0.1".to_owned(), "test".to_owned());
    let world = Arc::new(World::join(&JoinOptions { host, port, serve: false, rank, size, timeout, prefix }).unwrap());
    Ranks::of(Arc::new(ProcessGroup::new(&world, Device::Cpu).unwrap()))
}

/// Losses, norms of the gradients, and the weights after twenty steps.
type Course = (Vec<f64>, Vec<f64>, Vec<Tensor>);

/// Twenty steps, each of so many pieces over all ranks.
fn twenty_steps(ranks: Ranks, step_size: usize, settings: &Settings) -> Course {
    let golden = golden();
    let pieces = pieces(&golden);
    let (batch_size, learning_rate) = (step_size / ranks.size(), 1e-4);
    let settings = Settings { batch_size, learning_rate, max_grad_norm: Some(1.0), ranks, ..settings.clone() };
    let accumulation = settings.accumulation_steps;
    let model = network();
    let mut optimizer = Optimizer::new(&model, &settings);
    optimizer.join(&settings.ranks).unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..20 {
        let of_step: Vec<usize> = (0..step_size).map(|i| (step * step_size + i) % pieces.len()).collect();
        let mine = settings.ranks.shard(&of_step);
        let parts = mine.chunks(mine.len() / accumulation).map(|part| {
            let part: Vec<_> = part.iter().map(|&i| pieces[i].clone()).collect();
            language::micro_batch(model.architecture(), Batch::new(&part, 64).unwrap())
        });
        let of = |batch, mode| language::loss(&model, batch, mode);
        let done = run_step(&settings, &mut optimizer, parts.collect(), step as u64, of).unwrap();
        losses.push(done.loss);
        norms.push(done.report.grad_norm);
        if let Some(exchange) = optimizer.exchange() {
            assert!(exchange.buckets.len() > 1, "{exchange:?}");
            let ready = |bucket: usize| exchange.buckets[bucket].ready;
            assert!(ready(0) < ready(1) && exchange.waited >= 0.0, "{exchange:?}");
        }
    }
    let weights = model.parameters().iter().map(|(_, tensor)| tensor.detach()).collect();
    (losses, norms, weights)
}

fn compare(found: &Course, expected: &Course) {
    let worst = |found: &[f64], expected: &[f64]| {
        found.iter().zip(expected).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
    };
    let (losses, norms) = (worst(&found.0, &expected.0), worst(&found.1, &expected.1));
    let mean = |(a, b): (&Tensor, &Tensor)| (a - b).abs().mean(Kind::Double).double_value(&[]);
    let weights = found.2.iter().zip(&expected.2).map(mean).fold(0.0, f64::max);
    println!(
        "losses within {losses:.1e}, norms within {norms:.1e}, weights of a tensor within {weights:.1e} on average"
    );
    assert!(losses < 1e-6, "{losses}");
    assert!(norms < 1e-4, "{norms}");
    // Where a gradient is zero but for rounding Adam takes whole steps, of 1e-4 here, whichever way.
    assert!(weights < 1e-4, "{weights}");
}

#[test]
fn two_and_four_ranks_equal_one_process_step_by_step() {
    for (size, step_size, accumulation_steps, activation_checkpointing) in
        [(2, 2, 1, false), (2, 2, 1, true), (4, 8, 2, false)]
    {
        let plain = settings(Dtype::Fp32);
        let alone = twenty_steps(Ranks::default(), step_size, &plain);
        let of_ranks = Settings { accumulation_steps, activation_checkpointing, ..plain };
        for found in ranks(size, move |ranks| twenty_steps(ranks, step_size, &of_ranks)) {
            compare(&found, &alone);
        }
    }
}

/// Whether two courses have the same numbers and weights, bit for bit.
fn are_equal(one: &Course, other: &Course) -> bool {
    (&one.0, &one.1) == (&other.0, &other.1) && one.2.iter().zip(&other.2).all(|(one, other)| one.equal(other))
}

#[test]
fn an_optimizer_in_shards_takes_the_steps_of_a_whole_one_bit_for_bit() {
    for size in [2, 3] {
        let of = |shard_optimizer| {
            let settings = Settings { shard_optimizer, ..settings(Dtype::Fp32) };
            ranks(size, move |ranks| twenty_steps(ranks, 6, &settings))
        };
        let (whole, shards) = (of(false), of(true));
        assert!(shards.iter().all(|found| are_equal(found, &whole[0])), "{size} ranks");
    }
}

#[test]
fn gradients_may_travel_in_half_precision() {
    let of = |gradient_precision| {
        let settings = Settings { gradient_precision, ..settings(Dtype::Fp32) };
        ranks(2, move |ranks| twenty_steps(ranks, 2, &settings))
    };
    let whole = of(Dtype::Fp32);
    for (precision, tolerance) in [(Dtype::Fp16, 1e-5), (Dtype::Bf16, 1e-4)] {
        let found = of(precision);
        assert!(are_equal(&found[0], &found[1]), "ranks differ");
        let worst = found[0].0.iter().zip(&whole[0].0).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        println!("{precision:?}: losses within {worst:.1e}");
        assert!(worst > 0.0 && worst < tolerance, "{precision:?}: {worst}");
    }
}

/// One row of weights, and what is added.
struct Row {
    parameters: Vec<(String, Tensor)>,
}

impl Row {
    fn new() -> Row {
        let parameter =
            |name: &str, values: &[f32]| (name.to_owned(), Tensor::from_slice(values).set_requires_grad(true));
        Row { parameters: vec![parameter("row", &[0.5, -0.25, 1.0]), parameter("shift", &[0.125])] }
    }

    fn values(&self) -> Vec<f64> {
        let all: Vec<Tensor> = self.parameters.iter().map(|(_, tensor)| tensor.detach()).collect();
        Vec::try_from(Tensor::cat(&all, 0).to_kind(Kind::Double)).unwrap()
    }
}

impl Trainable for Row {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn load(&self, get: &mut dyn FnMut(&str) -> Result<Option<Tensor>>) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in &self.parameters {
            tensor.shallow_clone().copy_(&get(name)?.unwrap());
        }
        Ok(())
    }
}

/// Fits the row to examples of different weights, and remembers which were seen in which epoch.
struct Fit {
    examples: usize,
    step_size: usize,
    seen: Arc<Mutex<Vec<(u64, usize)>>>,
    /// An example with a loss that is not finite.
    broken: Option<usize>,
}

impl Objective for Fit {
    type Network = Row;
    type Input = (Vec<usize>, bool);

    fn examples(&self, split: Split) -> usize {
        if split == Split::Train { self.examples } else { 5 }
    }

    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        shuffled(self.examples, self.step_size, 1, epoch)
    }

    fn evaluation(&self) -> Vec<Vec<usize>> {
        in_order(5, 2)
    }

    fn load(&self, id: MicroBatchId, examples: &[usize]) -> Result<MicroBatch<Self::Input>> {
        if id.split == Split::Train {
            self.seen.lock().unwrap().extend(examples.iter().map(|&example| (id.epoch, example)));
        }
        let broken = id.split == Split::Train && self.broken.is_some_and(|broken| examples.contains(&broken));
        let weight = examples.iter().map(|example| *example as i64 + 1).sum();
        Ok(MicroBatch {
            input: (examples.to_vec(), broken),
            weight,
            work: Workload { patches: examples.len() as f64, ..Workload::default() },
        })
    }

    fn loss(&self, network: &Row, (examples, broken): Self::Input, _: Mode) -> Result<Loss> {
        let mut sum = Tensor::zeros([], (Kind::Float, Device::Cpu));
        for example in examples {
            let x = Tensor::from_slice(&[example as f32 * 0.1, 1.0, (example % 3) as f32]);
            let [row, shift] = [0, 1].map(|i| &network.parameters[i].1);
            let off = ((&x * row).sum(Kind::Float) + shift - 0.3).sum(Kind::Float);
            sum = off.square() * (example as f64 + 1.0) + sum;
        }
        Ok(Loss { sum: if broken { sum * f64::INFINITY } else { sum }, values: None })
    }
}

/// Raises the stop flag after a step.
struct StopAt<'a>(Option<u64>, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn event(&mut self, event: &TrainEvent) {
        if let (TrainEvent::Step { step, .. }, Some(at)) = (event, self.0)
            && *step >= at
        {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

struct Trained {
    outcome: Outcome,
    weights: Vec<f64>,
    seen: Vec<(u64, usize)>,
}

/// How to fit.
#[derive(Clone, Copy, Default)]
struct How {
    step_size: usize,
    stop_at: Option<u64>,
    broken: Option<usize>,
    shards: bool,
}

fn steps_of(step_size: usize) -> How {
    How { step_size, ..How::default() }
}

/// Three epochs of ten examples.
fn fit(ranks: Ranks, folder: &Path, how: How) -> Trained {
    let settings = Settings {
        batch_size: how.step_size / ranks.size(),
        epochs: Some(3),
        steps: None,
        warmup_steps: 0,
        learning_rate: 0.01,
        shard_optimizer: how.shards,
        ranks,
        ..settings(Dtype::Fp32)
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let step_size = settings.step_size();
    let objective = Arc::new(Fit { examples: 10, step_size, seen: seen.clone(), broken: how.broken });
    let (network, stop) = (Row::new(), AtomicBool::new(false));
    let outcome = train(&settings, &objective, &network, folder, &stop, &mut StopAt(how.stop_at, &stop)).unwrap();
    let seen = seen.lock().unwrap().clone();
    Trained { outcome, weights: network.values(), seen }
}

fn report(trained: &Trained) -> TrainReport {
    match &trained.outcome {
        Outcome::Finished(report) => report.clone(),
        Outcome::Interrupted => panic!("it was interrupted"),
    }
}

#[test]
fn every_example_of_an_epoch_is_seen_once_over_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let alone = fit(Ranks::default(), folder.path(), steps_of(6));
    // Ten examples in steps of six: a second step of four, which one rank of three has one and two ranks have two of.
    for size in [1, 2, 3] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let found = ranks(size, move |ranks| fit(ranks, folder.path(), steps_of(6)));
        let mut counts: HashMap<(u64, usize), usize> = HashMap::new();
        for place in found.iter().flat_map(|trained| &trained.seen) {
            *counts.entry(*place).or_default() += 1;
        }
        assert_eq!(counts.len(), 30, "{size} ranks");
        assert!(counts.values().all(|&count| count == 1), "{size} ranks: {counts:?}");
        for trained in &found {
            let (ours, theirs) = (report(trained), report(&alone));
            assert_eq!((ours.steps, ours.epochs, ours.patches, ours.best_epoch), (6, 3, 30, theirs.best_epoch));
            assert!((ours.best_eval_loss.unwrap() / theirs.best_eval_loss.unwrap() - 1.0).abs() < 1e-6);
            assert!((ours.train_loss / theirs.train_loss - 1.0).abs() < 1e-6);
            assert_eq!(trained.weights, found[0].weights, "ranks differ");
            for (a, b) in trained.weights.iter().zip(&alone.weights) {
                assert!((a - b).abs() < 1e-6, "{size} ranks: {:?}, alone {:?}", trained.weights, alone.weights);
            }
        }
    }
}

#[test]
fn more_ranks_than_examples_of_a_step_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let alone = fit(Ranks::default(), folder.path(), steps_of(4));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    // The last step of an epoch has two examples for four ranks.
    for trained in ranks(4, move |ranks| fit(ranks, folder.path(), steps_of(4))) {
        for (a, b) in trained.weights.iter().zip(&alone.weights) {
            assert!((a - b).abs() < 1e-6, "{:?}, alone {:?}", trained.weights, alone.weights);
        }
    }
}

#[test]
fn one_rank_told_to_stop_stops_all_and_another_number_of_ranks_goes_on_with_the_epoch() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let of = folder.clone();
    // Steps of two; only rank 0 sees the events that raise the flag, and tells of it with the next step.
    let before = ranks(2, move |ranks| fit(ranks, of.path(), How { stop_at: Some(6), ..steps_of(2) }));
    assert!(before.iter().all(|trained| trained.outcome == Outcome::Interrupted));
    // Loaders read ahead: what counts as seen is what the checkpoint says, seven steps: 5 + 2.
    let of = folder.clone();
    let after = ranks(3, move |ranks| fit(ranks, of.path(), steps_of(3)));
    let mut seen: Vec<_> = after.iter().flat_map(|trained| trained.seen.clone()).collect();
    seen.sort_unstable();
    let order = shuffled(10, 1, 1, 1).concat();
    let mut expected: Vec<(u64, usize)> = order[4..].iter().map(|&example| (1, example)).collect();
    expected.extend((0..10).map(|example| (2, example)));
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(report(&after[0]).steps, 7 + 2 + 4);
}

#[test]
fn shards_are_saved_whole_and_another_number_of_ranks_goes_on_with_them() {
    let of = |shards: bool, then: usize| {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let of = folder.clone();
        ranks(2, move |ranks| fit(ranks, of.path(), How { stop_at: Some(6), shards, ..steps_of(2) }));
        let saved = std::fs::read(folder.path().join("checkpoints/best.pth")).unwrap();
        let of = folder.clone();
        let after = ranks(then, move |ranks| fit(ranks, of.path(), How { shards, ..steps_of(then) }));
        let ended = std::fs::read(folder.path().join("checkpoints/best.pth")).unwrap();
        (saved, ended, after[0].weights.clone())
    };
    for then in [1, 3] {
        let (whole, shards) = (of(false, then), of(true, then));
        assert!(whole.0 == shards.0, "what two ranks saved is not the same");
        assert!(whole.1 == shards.1, "what {then} ranks saved is not the same");
        assert_eq!(whole.2, shards.2);
    }
}

#[test]
fn a_loss_that_is_not_finite_on_one_rank_is_skipped_on_all() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let found = ranks(2, move |ranks| fit(ranks, folder.path(), How { broken: Some(3), ..steps_of(2) }));
    for trained in &found {
        assert_eq!(report(trained).skipped, 3);
        assert_eq!(trained.weights, found[0].weights);
        assert!(trained.weights.iter().all(|weight| weight.is_finite()));
    }
}

#[test]
fn ranks_of_other_settings_are_refused() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let errors = ranks(2, move |ranks| {
        let settings =
            Settings { batch_size: 1, learning_rate: 0.01 * (ranks.rank() + 1) as f64, ranks, ..settings(Dtype::Fp32) };
        let objective = Arc::new(Fit { examples: 10, step_size: 2, seen: Arc::default(), broken: None });
        train(&settings, &objective, &Row::new(), folder.path(), &AtomicBool::new(false), &mut ())
            .unwrap_err()
            .to_string()
    });
    assert!(errors.iter().all(|error| error == "the settings of rank 1 are not those of rank 0"), "{errors:?}");
}

/// After how long a rank of the test below takes another for dead.
const SHORT: Duration = Duration::from_secs(8);

/// Takes longer than that at the end of the first epoch.
struct Slow;

impl Observer for Slow {
    fn event(&mut self, _: &TrainEvent) {}

    fn epoch(&mut self, epoch: u64) {
        thread::sleep(if epoch == 1 { SHORT + Duration::from_secs(3) } else { Duration::ZERO });
    }
}

#[test]
fn rank_0_may_take_longer_at_the_end_of_an_epoch_than_a_peer_may_be_silent() {
    let (server, folder) = (StoreServer::start().unwrap(), tempfile::tempdir().unwrap());
    let start = |rank: usize| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_rank_of_the_test_above", "--ignored", "--nocapture"]).env("RANK", rank.to_string());
        command.env("PORT", server.port().to_string()).env("FOLDER", folder.path()).spawn().unwrap()
    };
    for mut rank in [0, 1].map(start) {
        assert!(rank.wait().unwrap().success());
    }
}

#[test]
#[ignore = "one of the two processes of the test above"]
fn a_rank_of_the_test_above() {
    let get = |name| std::env::var(name).unwrap();
    let ranks = join(get("PORT").parse().unwrap(), get("RANK").parse().unwrap(), 2, SHORT);
    let settings = Settings { batch_size: 1, epochs: Some(2), steps: None, ranks, ..settings(Dtype::Fp32) };
    let objective = Arc::new(Fit { examples: 4, step_size: 2, seen: Arc::default(), broken: None });
    let stop = AtomicBool::new(false);
    let outcome = train(&settings, &objective, &Row::new(), Path::new(&get("FOLDER")), &stop, &mut Slow).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
}

#[test]
fn a_peer_that_ends_in_its_step_is_told_as_a_peer() {
    let kinds = ranks(2, |ranks| {
        let (rank, model, pieces) = (ranks.rank(), network(), pieces(&golden()));
        let settings = Settings { batch_size: 1, ranks, ..settings(Dtype::Fp32) };
        let mut optimizer = Optimizer::new(&model, &settings);
        optimizer.join(&settings.ranks).unwrap();
        let part = vec![language::micro_batch(model.architecture(), Batch::new(&pieces[..1], 64).unwrap())];
        let loss = |batch, mode| match rank {
            0 => language::loss(&model, batch, mode),
            _ => Err(trainer::Error::Internal("as the test wants".to_owned())),
        };
        run_step(&settings, &mut optimizer, part, 0, loss).unwrap_err().kind()
    });
    assert_eq!(kinds, [ErrorKind::Peer, ErrorKind::Internal]);
}
