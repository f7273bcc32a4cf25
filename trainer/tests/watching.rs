//! What a training tells a person who watches it: overfitting by its name, the best epoch, the end of every epoch.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{root, settings};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use trainer::{
    Dtype, ErrorKind, Loss, MicroBatch, MicroBatchId, Objective, Observer, Outcome, Result, Settings, Split,
    TrainEvent, Trainable, Workload, in_order, train,
};

/// One number.
struct Number(Vec<(String, Tensor)>);

impl Number {
    fn zero() -> Number {
        Number(vec![("number".to_owned(), Tensor::from_slice(&[0.0f32]).set_requires_grad(true))])
    }
}

impl Trainable for Number {
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
#[derive(Default)]
struct Move {
    aim: f64,
    /// The epoch whose first step has a loss that is not finite.
    broken: Option<u64>,
    /// The epoch in which a thread that loads dies.
    dies: Option<u64>,
    /// How long an evaluation takes.
    evaluation: Duration,
}

impl Objective for Move {
    type Network = Number;
    type Input = (Split, bool);

    fn examples(&self, _: Split) -> usize {
        2
    }

    fn epoch(&self, _: u64) -> Vec<Vec<usize>> {
        in_order(2, 1)
    }

    fn evaluation(&self) -> Vec<Vec<usize>> {
        in_order(2, 2)
    }

    fn load(&self, id: MicroBatchId, examples: &[usize]) -> Result<MicroBatch<(Split, bool)>> {
        assert!(id.split == Split::Eval || self.dies != Some(id.epoch), "as the test wants");
        let broken = id.split == Split::Train && self.broken == Some(id.epoch) && id.step == 0;
        let work = Workload { patches: 1.0, ..Workload::default() };
        Ok(MicroBatch { input: (id.split, broken), weight: examples.len() as i64, work })
    }

    fn loss(&self, network: &Number, (split, broken): (Split, bool), _: model::Mode) -> Result<Loss> {
        let (aim, weight) = if split == Split::Train { (1.0, 1.0) } else { (self.aim, 2.0) };
        std::thread::sleep(if split == Split::Eval { self.evaluation } else { Duration::ZERO });
        let weight = if broken { f64::INFINITY } else { weight };
        Ok(Loss { sum: (&network.0[0].1 - aim).square().sum(Kind::Float) * weight, values: None })
    }
}

/// Notes what it is told; raises the flag during an epoch's end.
struct Watch<'a> {
    events: Vec<TrainEvent>,
    epochs: Vec<u64>,
    stop_in: Option<u64>,
    stop: &'a AtomicBool,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &TrainEvent) {
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
    let (network, stop) = (Number::zero(), AtomicBool::new(false));
    let mut watch = Watch { events: Vec::new(), epochs: Vec::new(), stop_in, stop: &stop };
    let outcome =
        train(&course, &Arc::new(Move { aim, ..Move::default() }), &network, folder, &stop, &mut watch).unwrap();
    let warnings = watch.events.iter().filter_map(|event| match event {
        TrainEvent::Warning { step, message } => Some((*step, message.clone())),
        _ => None,
    });
    let evaluated = watch.events.iter().filter_map(|event| match event {
        TrainEvent::Evaluated { epoch, best, best_epoch, .. } => Some((*epoch, *best, *best_epoch)),
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
        let network = Number::zero();
        let mut watch = Watch { events: Vec::new(), epochs: Vec::new(), stop_in: None, stop: &stop };
        let objective = Arc::new(Move { aim: 1.0, broken: Some(1), ..Move::default() });
        train(&course, &objective, &network, folder.path(), &stop, &mut watch).unwrap();
        (watch.events, network.0[0].1.double_value(&[0]))
    });
    for (events, _) in &events {
        let skipped: Vec<u64> =
            events.iter().filter(|event| matches!(event, TrainEvent::Skipped { .. })).map(step).collect();
        assert_eq!(skipped, [3], "{events:?}");
        let last = |event: &&TrainEvent| matches!(event, TrainEvent::Step { .. });
        let Some(TrainEvent::Step { step, learning_rate, skipped, .. }) = events.iter().rfind(last) else {
            panic!("{events:?}")
        };
        // The rate of the fifth step that counts, behind a warm-up of four.
        assert_eq!((*step, *learning_rate, *skipped), (6, 0.05, 1));
    }
    assert_eq!(events[0].1, events[1].1);
}

fn step(event: &TrainEvent) -> u64 {
    match event {
        TrainEvent::Skipped { step, .. } => *step,
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

/// So many epochs with an objective.
fn epochs(
    epochs: u64,
    objective: Move,
    folder: &Path,
    change: impl Fn(&mut Settings),
) -> (Result<Outcome>, Vec<TrainEvent>) {
    let mut course =
        Settings { epochs: Some(epochs), steps: None, batch_size: 1, warmup_steps: 0, ..settings(Dtype::Fp32) };
    change(&mut course);
    let stop = AtomicBool::new(false);
    let mut watch = Watch { events: Vec::new(), epochs: Vec::new(), stop_in: None, stop: &stop };
    let outcome = train(&course, &Arc::new(objective), &Number::zero(), folder, &stop, &mut watch);
    (outcome, watch.events)
}

#[test]
fn the_speed_is_that_of_steps_without_evaluations() {
    let slow = Move { evaluation: Duration::from_millis(500), ..Move::default() };
    let folder = tempfile::tempdir().unwrap();
    let (_, events) = epochs(3, slow, folder.path(), |settings| settings.log_every = 100);
    let steps: Vec<_> = events.iter().filter(|event| matches!(event, TrainEvent::Step { .. })).collect();
    let [TrainEvent::Step { patches_per_second, seconds, memory, memory_peak, .. }] = steps[..] else {
        panic!("{steps:?}")
    };
    // Six patches, with two evaluations among them.
    assert!(*seconds > 1.0 && *patches_per_second > 12.0, "{patches_per_second} patches a second in {seconds} s");
    assert!(memory <= memory_peak);
}

#[test]
fn a_training_that_resumes_leaves_no_point_twice() {
    let folder = tempfile::tempdir().unwrap();
    let often = |settings: &mut Settings| (settings.checkpoint_every, settings.keep_checkpoints) = (2, 9);
    epochs(3, Move { aim: 1.0, ..Move::default() }, folder.path(), often).0.unwrap();
    // As if it had been killed before the last checkpoint.
    for end in ["pth", "json"] {
        std::fs::remove_file(folder.path().join(format!("checkpoints/step_000000006.{end}"))).unwrap();
    }
    // The writer names its files by the second.
    std::thread::sleep(Duration::from_millis(1100));
    let (_, events) = epochs(5, Move { aim: 1.0, ..Move::default() }, folder.path(), often);
    assert!(matches!(events[0], TrainEvent::Started { resumed_from: 4, .. }), "{events:?}");
    let packages = root().join(".tools/python");
    assert!(packages.exists(), "no {}: run scripts/setup --tests", packages.display());
    let script = "import sys, json\n\
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
        for folder in sys.argv[1:]:\n    \
            board = EventAccumulator(folder, size_guidance={'scalars': 0}).Reload()\n    \
            print(json.dumps({tag: [point.step for point in board.Scalars(tag)] for tag in board.Tags()['scalars']}))";
    let board = folder.path().join("tensorboard");
    let mut python = std::process::Command::new("python3");
    python.env("PYTHONPATH", packages).args(["-c", script]).arg(&board).arg(board.join("best"));
    let out = python.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let lines: Vec<HashMap<String, Vec<u64>>> =
        String::from_utf8(out.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["train/loss"], (1..=10).collect::<Vec<_>>());
    assert_eq!((&lines[0]["eval/loss"], &lines[1]["eval/loss"]), (&vec![2, 4, 6, 8, 10], &vec![2, 4, 6, 8, 10]));
}

#[test]
fn what_goes_on_from_a_file_at_its_last_epoch_still_leaves_its_best_weights() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    epochs(2, Move::default(), first.path(), |_| ()).0.unwrap();
    let from = first.path().join("checkpoints/step_000000004.pth");
    for length in [1, 2] {
        let resume = |settings: &mut Settings| settings.resume_from = Some(from.clone());
        let (outcome, _) = epochs(length, Move::default(), second.path(), resume);
        let Outcome::Finished(report) = outcome.unwrap() else { panic!("it was interrupted") };
        assert_eq!(report.steps, 4);
        let weight = |path: &Path| {
            let state = model::weights::load_state(path).unwrap();
            state.load("number", Device::Cpu).unwrap().unwrap().double_value(&[0])
        };
        assert_eq!(weight(&report.best), weight(&from));
        std::fs::remove_dir_all(second.path().join("checkpoints")).unwrap();
    }
}

#[test]
fn a_thread_that_dies_is_no_fault_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let error = epochs(3, Move { dies: Some(1), ..Move::default() }, folder.path(), |_| ()).0.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Internal, "a thread that reads pieces has died")
    );
    let error = epochs(0, Move::default(), folder.path(), |_| ()).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
