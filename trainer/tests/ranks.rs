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
use torch_ext::{Group, Join, Server, World};
use trainer::{
    Event, Length, Loss, Network, Objective, Observer, Optimizer, Outcome, Part, Place, Precision, Ranks, Report,
    Result, Set, Settings, in_order, language, run_step, shuffled, train,
};

/// Runs `work` on every rank and returns what they give, by rank.
fn ranks<T: Send + 'static>(size: usize, work: impl Fn(Ranks) -> T + Send + Sync + 'static) -> Vec<T> {
    let server = Server::start().unwrap();
    let (port, work) = (server.port(), Arc::new(work));
    let start = |rank| {
        let work = work.clone();
        thread::spawn(move || {
            let (host, timeout) = ("127.0.0.1".to_owned(), Duration::from_secs(60));
            let join = Join { host, port, serve: false, rank, size, timeout, prefix: "test".to_owned() };
            let world = Arc::new(World::join(&join).unwrap());
            work(Ranks::of(Arc::new(Group::new(&world, Device::Cpu).unwrap())))
        })
    };
    let threads: Vec<_> = (0..size).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Losses, norms of the gradients, and the weights after 20 steps, each of so many pieces over all ranks.
fn twenty_steps(
    ranks: Ranks,
    step_size: usize,
    accumulation: usize,
    checkpointing: bool,
) -> (Vec<f64>, Vec<f64>, Vec<Tensor>) {
    let golden = golden();
    let pieces = pieces(&golden);
    let settings = Settings {
        batch_size: step_size / ranks.size(),
        accumulation_steps: accumulation,
        max_grad_norm: Some(1.0),
        activation_checkpointing: checkpointing,
        ranks,
        ..settings(Precision::Fp32)
    };
    let model = network();
    let mut optimizer = Optimizer::new(&model, &settings);
    optimizer.spread(&settings.ranks).unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..20 {
        let of_step: Vec<usize> = (0..step_size).map(|i| (step * step_size + i) % pieces.len()).collect();
        let mine = settings.ranks.share(&of_step);
        let parts = mine.chunks(mine.len() / accumulation).map(|part| {
            let part: Vec<_> = part.iter().map(|&i| pieces[i].clone()).collect();
            language::part(Batch::new(&part, 64).unwrap())
        });
        let of = |batch, mode| language::loss(&model, batch, mode);
        let done = run_step(&settings, &mut optimizer, parts.collect(), 1e-4, step as u64, of).unwrap();
        losses.push(done.loss);
        norms.push(done.report.grad_norm);
    }
    let weights = model.parameters().iter().map(|(_, tensor)| tensor.detach()).collect();
    (losses, norms, weights)
}

fn compare(found: &(Vec<f64>, Vec<f64>, Vec<Tensor>), expected: &(Vec<f64>, Vec<f64>, Vec<Tensor>)) {
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
    for (size, step_size, accumulation, checkpointing) in [(2, 2, 1, false), (2, 2, 1, true), (4, 8, 2, false)] {
        let alone = twenty_steps(Ranks::default(), step_size, 1, false);
        for found in ranks(size, move |ranks| twenty_steps(ranks, step_size, accumulation, checkpointing)) {
            compare(&found, &alone);
        }
    }
}

/// One row of weights.
struct Row {
    parameters: Vec<(String, Tensor)>,
}

impl Row {
    fn new() -> Row {
        let weights = Tensor::from_slice(&[0.5f32, -0.25, 1.0]).set_requires_grad(true);
        Row { parameters: vec![("row".to_owned(), weights)] }
    }

    fn values(&self) -> Vec<f64> {
        Vec::try_from(self.parameters[0].1.detach().to_kind(Kind::Double)).unwrap()
    }
}

impl Network for Row {
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
        let mut weights = self.parameters[0].1.shallow_clone();
        weights.copy_(&get("row")?.unwrap());
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

    fn examples(&self, set: Set) -> usize {
        if set == Set::Train { self.examples } else { 5 }
    }

    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        shuffled(self.examples, self.step_size, 1, epoch)
    }

    fn evaluation(&self) -> Vec<Vec<usize>> {
        in_order(5, 2)
    }

    fn load(&self, place: Place, examples: &[usize]) -> Result<Part<Self::Input>> {
        if place.set == Set::Train {
            self.seen.lock().unwrap().extend(examples.iter().map(|&example| (place.epoch, example)));
        }
        let broken = place.set == Set::Train && self.broken.is_some_and(|broken| examples.contains(&broken));
        let weight = examples.iter().map(|example| *example as i64 + 1).sum();
        Ok(Part { input: (examples.to_vec(), broken), weight, patches: examples.len() as i64 })
    }

    fn loss(&self, network: &Row, (examples, broken): Self::Input, _: Mode) -> Result<Loss> {
        let mut sum = Tensor::zeros([], (Kind::Float, Device::Cpu));
        for example in examples {
            let x = Tensor::from_slice(&[example as f32 * 0.1, 1.0, (example % 3) as f32]);
            let off = (&x * &network.parameters[0].1).sum(Kind::Float) - 0.3;
            sum = off.square() * (example as f64 + 1.0) + sum;
        }
        Ok(Loss { sum: if broken { sum * f64::INFINITY } else { sum }, values: None })
    }
}

/// Raises the stop flag after a step.
struct StopAt<'a>(Option<u64>, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn event(&mut self, event: &Event) {
        if let (Event::Step { step, .. }, Some(at)) = (event, self.0)
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

/// Three epochs of ten examples.
fn fit(ranks: Ranks, folder: &Path, step_size: usize, stop_at: Option<u64>, broken: Option<usize>) -> Trained {
    let settings = Settings {
        batch_size: step_size / ranks.size(),
        length: Length::Epochs(3),
        warmup_steps: 0,
        learning_rate: 0.01,
        ranks,
        ..settings(Precision::Fp32)
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let objective = Arc::new(Fit { examples: 10, step_size: settings.step_size(), seen: seen.clone(), broken });
    let (network, stop) = (Row::new(), AtomicBool::new(false));
    let outcome = train(&settings, &objective, &network, folder, &stop, &mut StopAt(stop_at, &stop)).unwrap();
    let seen = seen.lock().unwrap().clone();
    Trained { outcome, weights: network.values(), seen }
}

fn report(trained: &Trained) -> Report {
    match &trained.outcome {
        Outcome::Finished(report) => report.clone(),
        Outcome::Interrupted => panic!("it was interrupted"),
    }
}

#[test]
fn every_example_of_an_epoch_is_seen_once_over_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let alone = fit(Ranks::default(), folder.path(), 6, None, None);
    // Ten examples in steps of six: a second step of four, which one rank of three has one and two ranks have two of.
    for size in [1, 2, 3] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let found = ranks(size, move |ranks| fit(ranks, folder.path(), 6, None, None));
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
    let alone = fit(Ranks::default(), folder.path(), 4, None, None);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    // The last step of an epoch has two examples for four ranks.
    for trained in ranks(4, move |ranks| fit(ranks, folder.path(), 4, None, None)) {
        for (a, b) in trained.weights.iter().zip(&alone.weights) {
            assert!((a - b).abs() < 1e-6, "{:?}, alone {:?}", trained.weights, alone.weights);
        }
    }
}

#[test]
fn one_rank_told_to_stop_stops_all_and_another_number_of_ranks_goes_on_with_the_epoch() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let of = folder.clone();
    // Steps of two; only rank 0 sees the events that raise the flag.
    let before = ranks(2, move |ranks| fit(ranks, of.path(), 2, Some(7), None));
    assert!(before.iter().all(|trained| trained.outcome == Outcome::Interrupted));
    // Loaders read ahead: what counts as seen is what the checkpoint says, seven steps: 5 + 2.
    let of = folder.clone();
    let after = ranks(3, move |ranks| fit(ranks, of.path(), 3, None, None));
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
fn a_loss_that_is_not_finite_on_one_rank_is_skipped_on_all() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let found = ranks(2, move |ranks| fit(ranks, folder.path(), 2, None, Some(3)));
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
        let settings = Settings {
            batch_size: 1,
            learning_rate: 0.01 * (ranks.rank() + 1) as f64,
            ranks,
            ..settings(Precision::Fp32)
        };
        let objective = Arc::new(Fit { examples: 10, step_size: 2, seen: Arc::default(), broken: None });
        train(&settings, &objective, &Row::new(), folder.path(), &AtomicBool::new(false), &mut ())
            .unwrap_err()
            .to_string()
    });
    assert!(errors.iter().all(|error| error == "the settings of rank 1 are not those of rank 0"), "{errors:?}");
}
