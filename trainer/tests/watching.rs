//! What a training tells a person who watches it: overfitting by its name, the best epoch, the end of every epoch.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::settings;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};
use trainer::{
    Dtype, Event, Loss, Network, Objective, Observer, Outcome, Part, Place, Result, Set, Settings, Work, in_order,
    train,
};

/// One number.
struct Number(Vec<(String, Tensor)>);

impl Network for Number {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn parameters(&self) -> &[(String, Tensor)] {
        &self.0
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn load(&self, get: &mut dyn FnMut(&str) -> Result<Option<Tensor>>) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.0[0].1.shallow_clone().copy_(&get("number")?.unwrap());
        Ok(())
    }
}

/// Moves the number from 0 to 1, two steps an epoch, while the evaluation wants it to be `aim`.
struct Move {
    aim: f64,
    /// The epoch whose first step has a loss that is not finite.
    broken: Option<u64>,
}

impl Objective for Move {
    type Network = Number;
    type Input = (Set, bool);

    fn examples(&self, _: Set) -> usize {
        2
    }

    fn epoch(&self, _: u64) -> Vec<Vec<usize>> {
        in_order(2, 1)
    }

    fn evaluation(&self) -> Vec<Vec<usize>> {
        in_order(2, 2)
    }

    fn load(&self, place: Place, examples: &[usize]) -> Result<Part<(Set, bool)>> {
        let broken = place.set == Set::Train && self.broken == Some(place.epoch) && place.step == 0;
        let work = Work { patches: 1.0, ..Work::default() };
        Ok(Part { input: (place.set, broken), weight: examples.len() as i64, work })
    }

    fn loss(&self, network: &Number, (set, broken): (Set, bool), _: model::Mode) -> Result<Loss> {
        let (aim, weight) = if set == Set::Train { (1.0, 1.0) } else { (self.aim, 2.0) };
        let weight = if broken { f64::INFINITY } else { weight };
        Ok(Loss { sum: (&network.0[0].1 - aim).square().sum(Kind::Float) * weight, values: None })
    }
}

/// Notes what it is told; raises the flag during an epoch's end.
struct Watch<'a> {
    events: Vec<Event>,
    epochs: Vec<u64>,
    stop_in: Option<u64>,
    stop: &'a AtomicBool,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        self.events.push(event.clone());
    }

    fn epoch(&mut self, epoch: u64) {
        self.epochs.push(epoch);
        if self.stop_in == Some(epoch) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

struct Watched {
    outcome: Outcome,
    warnings: Vec<(u64, String)>,
    evaluated: Vec<(u64, bool, u64)>,
    epochs: Vec<u64>,
}

fn watch(folder: &Path, aim: f64, early_stopping: Option<u64>, stop_in: Option<u64>) -> Watched {
    let course = Settings {
        epochs: Some(9),
        steps: None,
        early_stopping,
        learning_rate: 0.05,
        warmup_steps: 0,
        ..settings(Dtype::Fp32)
    };
    let course = Settings { batch_size: 1, ..course };
    let network = Number(vec![("number".to_owned(), Tensor::from_slice(&[0.0f32]).set_requires_grad(true))]);
    let stop = AtomicBool::new(false);
    let mut watch = Watch { events: Vec::new(), epochs: Vec::new(), stop_in, stop: &stop };
    let outcome = train(&course, &Arc::new(Move { aim, broken: None }), &network, folder, &stop, &mut watch).unwrap();
    let warnings = watch.events.iter().filter_map(|event| match event {
        Event::Warning { step, message } => Some((*step, message.clone())),
        _ => None,
    });
    let evaluated = watch.events.iter().filter_map(|event| match event {
        Event::Evaluated { epoch, best, best_epoch, .. } => Some((*epoch, *best, *best_epoch)),
        _ => None,
    });
    Watched { outcome, warnings: warnings.collect(), evaluated: evaluated.collect(), epochs: watch.epochs }
}

#[test]
fn overfitting_is_named_once_also_where_nothing_stops_for_it() {
    let folder = tempfile::tempdir().unwrap();
    // Up to 0.2 the evaluation gains; each epoch moves the number by about 0.1.
    let found = watch(folder.path(), 0.2, None, None);
    assert_eq!(found.evaluated[..4], [(1, true, 1), (2, true, 2), (3, false, 2), (4, false, 2)]);
    let [(step, message)] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert_eq!(*step, 14, "the fifth evaluation after the best");
    assert!(
        message.starts_with("overfitting: no better eval loss in 5 evaluations, 0.0000 in epoch 2 and 0."),
        "{message}"
    );
    assert!(message.contains("in epoch 7, while the training loss fell from 0."), "{message}");
    let stopped = watch(tempfile::tempdir().unwrap().path(), 0.2, Some(2), None);
    assert_eq!(stopped.warnings.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [8]);
    assert_eq!(stopped.evaluated.len(), 4);
    // The best evaluations are a curve of their own beside that of all.
    let best = std::fs::read_dir(folder.path().join("tensorboard/best")).unwrap().next().unwrap().unwrap().path();
    let events = std::fs::read(best).unwrap();
    assert_eq!(events.windows(9).filter(|bytes| bytes == b"eval/loss").count(), 2);
}

#[test]
fn what_gains_and_what_learns_nothing_is_no_overfitting() {
    let gains = watch(tempfile::tempdir().unwrap().path(), 1.0, None, None);
    assert_eq!((gains.warnings.len(), gains.evaluated.len()), (0, 9));
    assert!(gains.evaluated.iter().all(|(epoch, best, best_epoch)| *best && epoch == best_epoch));
}

#[test]
fn the_end_of_an_epoch_is_told_again_where_work_on_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = watch(folder.path(), 1.0, None, Some(4));
    assert_eq!((stopped.outcome, stopped.epochs), (Outcome::Interrupted, vec![1, 2, 3, 4]));
    let resumed = watch(folder.path(), 1.0, None, None);
    assert_eq!((resumed.epochs, resumed.evaluated.len()), (vec![4, 5, 6, 7, 8, 9], 5));
}

#[test]
fn a_void_step_is_told_by_its_own_number_also_where_numbers_are_read_later() {
    let stop = AtomicBool::new(false);
    let events = [1, 100].map(|log_every| {
        let folder = tempfile::tempdir().unwrap();
        let course = Settings { epochs: Some(3), steps: None, batch_size: 1, log_every, ..settings(Dtype::Fp32) };
        let course = Settings { learning_rate: 0.05, warmup_steps: 4, ..course };
        let network = Number(vec![("number".to_owned(), Tensor::from_slice(&[0.0f32]).set_requires_grad(true))]);
        let mut watch = Watch { events: Vec::new(), epochs: Vec::new(), stop_in: None, stop: &stop };
        let objective = Arc::new(Move { aim: 1.0, broken: Some(1) });
        train(&course, &objective, &network, folder.path(), &stop, &mut watch).unwrap();
        (watch.events, network.0[0].1.double_value(&[0]))
    });
    for (events, _) in &events {
        let skipped: Vec<u64> =
            events.iter().filter(|event| matches!(event, Event::Skipped { .. })).map(step).collect();
        assert_eq!(skipped, [3], "{events:?}");
        let last = |event: &&Event| matches!(event, Event::Step { .. });
        let Some(Event::Step { step, learning_rate, skipped, .. }) = events.iter().rfind(last) else {
            panic!("{events:?}")
        };
        // The rate of the fifth step that counts, behind a warm-up of four.
        assert_eq!((*step, *learning_rate, *skipped), (6, 0.05, 1));
    }
    assert_eq!(events[0].1, events[1].1);
}

fn step(event: &Event) -> u64 {
    match event {
        Event::Skipped { step, .. } => *step,
        _ => 0,
    }
}

#[test]
fn weights_that_are_the_last_and_the_best_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    watch(folder.path(), 1.0, None, None);
    let file = |name: &str| std::fs::metadata(folder.path().join("checkpoints").join(name)).unwrap().ino();
    assert_eq!(file("best.pth"), file("step_000000018.pth"));
    let names = std::fs::read_dir(folder.path().join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["best.pth", "step_000000018.json", "step_000000018.pth"]);
}
