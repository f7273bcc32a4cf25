//! M3 learns through the same loop as NotaGen: on real pieces, through interruptions, into PyTorch's hands.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{root, settings};
use model::m3::{M3, M3Architecture, UNUSED_PARAMETERS};
use notation::preprocess::{Keys, convert};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;
use trainer::{Dtype, M3Params, Observer, Outcome, Settings, TrainEvent, TrainReport, m3};

const PIECES: usize = 20;
/// Dropout is drawn from the process's one generator: trainings of several tests at once would share it.
static ALONE: Mutex<()> = Mutex::new(());

/// A folder of interleaved chorales, one of them in a subfolder.
fn corpus() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("more")).unwrap();
    let scores = root().join("data/quickstart/scores");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&scores)
        .unwrap_or_else(|_| panic!("{} is missing: run scripts/corpus", scores.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("bach_"))
        .collect();
    names.sort();
    for (i, path) in names.iter().take(PIECES).enumerate() {
        let text = convert(&std::fs::read(path).unwrap(), Keys::Original).unwrap().interleaved;
        let within = if i == 0 { "more" } else { "." };
        let name = path.with_extension("abc");
        std::fs::write(folder.path().join(within).join(name.file_name().unwrap()), text).unwrap();
    }
    folder
}

/// Stops the training after a step.
struct Watch<'a> {
    stop: &'a AtomicBool,
    after: u64,
    losses: Vec<f64>,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &TrainEvent) {
        if let TrainEvent::Step { step, loss, .. } = event {
            self.losses.push(*loss);
            if *step == self.after {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn course() -> Settings {
    Settings { learning_rate: 2e-3, warmup_steps: 2, steps: Some(24), checkpoint_every: 5, ..settings(Dtype::Fp32) }
}

fn run(pieces: &Path, folder: &Path, after: u64) -> (M3, Outcome, Vec<f64>) {
    let sizes = M3Architecture {
        patch_length: 32,
        patch_layers: 1,
        token_layers: 1,
        hidden_size: 64,
        ..M3Architecture::default()
    };
    let model = M3::new(&sizes, Device::Cpu, 5).unwrap();
    let m3 = M3Params { train: pieces.to_owned(), eval: None, eval_split: 0.1, pieces: None, mask_ratio: 0.45 };
    let stop = AtomicBool::new(false);
    let mut watch = Watch { stop: &stop, after, losses: Vec::new() };
    let outcome = m3::train(&course(), &m3, &model, folder, &stop, &mut watch).unwrap();
    (model, outcome, watch.losses)
}

fn report(outcome: Outcome) -> TrainReport {
    match outcome {
        Outcome::Finished(report) => report,
        Outcome::Interrupted => panic!("interrupted"),
    }
}

#[test]
fn the_loss_falls_an_interruption_changes_nothing_and_pytorch_goes_on() {
    let _alone = ALONE.lock();
    let (pieces, whole, parts) = (corpus(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (model, outcome, losses) = run(pieces.path(), whole.path(), u64::MAX);
    let report = report(outcome);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (before, behind) = (mean(&losses[..3]), mean(&losses[21..]));
    assert!(before > 4.0 && behind < 0.75 * before, "{losses:?}");
    let eval = report.best_eval_loss.unwrap();
    assert!(eval < 0.75 * before && eval > 0.5, "{eval}");

    let (_, outcome, first) = run(pieces.path(), parts.path(), 8);
    assert_eq!(outcome, Outcome::Interrupted);
    let (resumed, _, second) = run(pieces.path(), parts.path(), u64::MAX);
    assert_eq!([first, second].concat(), losses);
    for ((name, a), (_, b)) in model.state_dict().iter().zip(resumed.state_dict()) {
        assert!(a.equal(&b), "{name}");
    }

    let fresh = M3::new(model.architecture(), Device::Cpu, 5).unwrap();
    for ((name, trained), (_, fresh)) in model.parameters().iter().zip(fresh.parameters()) {
        assert_eq!(trained.equal(fresh), UNUSED_PARAMETERS.contains(&name.as_str()), "{name}");
    }
    let out = Command::new("python3")
        .env("PYTHONPATH", root().join(".tools/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("OMP_NUM_THREADS", "1")
        .arg(root().join("trainer/tests/golden/m3_load.py"))
        .arg(&report.best)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let told: Vec<f64> = String::from_utf8_lossy(&out.stdout).split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(told[1..], [report.best_epoch as f64, eval]);
}

#[test]
fn half_precision_learns_too_and_activations_may_be_computed_again() {
    let _alone = ALONE.lock();
    let (pieces, folder) = (corpus(), tempfile::tempdir().unwrap());
    let sizes = M3Architecture {
        patch_length: 32,
        patch_layers: 2,
        token_layers: 1,
        hidden_size: 64,
        ..M3Architecture::default()
    };
    let mut losses = Vec::new();
    for (name, activation_checkpointing) in [("kept", false), ("again", true)] {
        let model = M3::new(&sizes, Device::Cpu, 5).unwrap();
        let m3 = M3Params {
            train: pieces.path().into(),
            eval: None,
            eval_split: 0.0,
            pieces: Some("bach_*".into()),
            mask_ratio: 0.45,
        };
        let settings = Settings { precision: Dtype::Bf16, steps: Some(6), activation_checkpointing, ..course() };
        let stop = AtomicBool::new(false);
        let mut watch = Watch { stop: &stop, after: u64::MAX, losses: Vec::new() };
        report(m3::train(&settings, &m3, &model, &folder.path().join(name), &stop, &mut watch).unwrap());
        losses.push(watch.losses);
    }
    // The dropout of recomputed blocks has its own seeds: the first step sees other masks, and the same weights.
    for (kept, again) in losses[0].iter().zip(&losses[1]) {
        assert!((kept / again - 1.0).abs() < 0.05, "{losses:?}");
    }
    assert!(losses[0][5] < losses[0][0], "{losses:?}");
}

#[test]
fn what_cannot_be_trained_on_is_told() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let model = M3::new(
        &M3Architecture { patch_layers: 1, token_layers: 1, hidden_size: 64, ..M3Architecture::default() },
        Device::Cpu,
        5,
    )
    .unwrap();
    let m3 =
        M3Params { train: folder.path().join("pieces"), eval: None, eval_split: 0.0, pieces: None, mask_ratio: 0.45 };
    let error = |m3: &M3Params| {
        let stop = AtomicBool::new(false);
        let mut watch = Watch { stop: &stop, after: 0, losses: Vec::new() };
        m3::train(&course(), m3, &model, &folder.path().join("run"), &stop, &mut watch).unwrap_err().to_string()
    };
    assert!(error(&m3).contains("pieces: No such file"), "{}", error(&m3));
    std::fs::create_dir(&m3.train).unwrap();
    assert!(error(&m3).ends_with("pieces: no piece in it"), "{}", error(&m3));
    std::fs::write(m3.train.join("a.abc"), "K:C\nA|\n|").unwrap();
    assert!(error(&m3).ends_with("a.abc: line 3: a barline alone"), "{}", error(&m3));
    let none = M3Params { eval_split: 1.0, ..m3.clone() };
    assert_eq!(error(&none), "eval_split is 1: no piece is left to train on");
    let zero = M3Params { mask_ratio: 0.0, ..m3 };
    assert_eq!(error(&zero), "mask_ratio is 0: it must be a portion of 1");
}
