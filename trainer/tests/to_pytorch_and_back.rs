//! A training that moves to PyTorch and back, with its optimizer state.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{BATCH, golden, network, parts, pieces, root, settings};
use model::NotaGen;
use std::path::Path;
use std::process::Command;
use tch::Tensor;
use trainer::{
    Checkpoints, Dtype, Optimizer, Settings, TrainPosition, TrainState, language, resume_newest, resume_original,
    run_step,
};

const AT: u64 = 20;
const FURTHER: u64 = 5;

fn steps(model: &NotaGen, optimizer: &mut Optimizer, settings: &Settings, from: u64, count: u64) -> Vec<f64> {
    let pieces = pieces(&golden());
    let rate = |step| settings.learning_rate * settings.factor(50, step);
    optimizer.set_learning_rates(&(from..from + count).map(rate).collect::<Vec<_>>());
    (from..from + count)
        .map(|step| {
            let batch = parts(&pieces, step as usize, 1);
            let of = |batch, mode| language::loss(model, batch, mode);
            run_step(settings, optimizer, batch, step, of).unwrap().loss
        })
        .collect()
}

fn fresh(settings: &Settings) -> (NotaGen, Optimizer) {
    let model = network();
    let optimizer = Optimizer::new(&model, settings);
    (model, optimizer)
}

fn python(arguments: &[&Path]) {
    let packages = root().join(".tools/python");
    assert!(packages.exists(), "no {}: run scripts/setup --tests", packages.display());
    let script = root().join("scripts/reference/continue_training.py");
    let out = Command::new("python3")
        .env("PYTHONPATH", packages)
        .arg(script)
        .args(arguments)
        .args(["--warmup", "10", "--first-step", "20", "--steps", "5", "--batch", &BATCH.to_string()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn same_weights(ours: &NotaGen, theirs: impl Fn(&str) -> Tensor, tolerance: f64) {
    for (name, tensor) in ours.state_dict() {
        let difference = (&tensor - theirs(&name)).abs().max().double_value(&[]);
        assert!(difference < tolerance, "{name}: {difference}");
    }
}

#[test]
fn five_further_steps_are_the_same_in_pytorch_and_here() {
    let settings = settings(Dtype::Fp32);
    let folder = tempfile::tempdir().unwrap();
    let (model, mut optimizer) = fresh(&settings);
    steps(&model, &mut optimizer, &settings, 0, AT);
    let mut checkpoints = Checkpoints::open(folder.path(), 2, true).unwrap();
    let position = TrainPosition { step: AT, scheduled: AT, epoch: AT, ..TrainPosition::default() };
    let at = TrainState { position, ..TrainState::default() };
    let saved = checkpoints.save(&model, &optimizer, &at, &settings).unwrap();
    checkpoints.finish().unwrap();
    let ours = steps(&model, &mut optimizer, &settings, AT, FURTHER);

    let (result, back) = (folder.path().join("result.safetensors"), folder.path().join("back.pth"));
    let pieces = root().join("trainer/tests/golden/training.safetensors");
    python(&[&saved, &pieces, &result, Path::new("--save"), &back]);
    let result: std::collections::HashMap<_, _> = Tensor::read_safetensors(result).unwrap().into_iter().collect();
    let theirs: Vec<f64> = result["loss"].shallow_clone().try_into().unwrap();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((ours / theirs - 1.0).abs() < 1e-5, "{ours} here, {theirs} in PyTorch");
    }
    // Where the true gradient is nought (a key's bias) Adam makes steps of up to the learning rate from rounding alone.
    same_weights(&model, |name| result[&format!("model/{name}")].shallow_clone(), 1e-4);

    // Back from the file that PyTorch wrote, against having stayed here.
    let stayed = steps(&model, &mut optimizer, &settings, AT + FURTHER, FURTHER);
    let (model, mut optimizer) = fresh(&settings);
    let state = resume_original(&back, &model, &mut optimizer, 1).unwrap();
    let (position, best) = (state.position, state.evaluations.best_eval_loss);
    assert_eq!((position.step, position.scheduled, best), (25, 25, Some(1.5)));
    let returned = steps(&model, &mut optimizer, &settings, position.step, FURTHER);
    for (stayed, returned) in stayed.iter().zip(&returned) {
        assert!((stayed / returned - 1.0).abs() < 1e-5, "{stayed} stayed, {returned} returned");
    }

    // And from our own checkpoint, bit for bit; what a killed run left half-written is gone.
    let half_written = folder.path().join("checkpoints/.step_000000030.pth.abc123.part");
    std::fs::write(&half_written, b"half").unwrap();
    let without_weights = folder.path().join("checkpoints/step_000000030.json");
    std::fs::write(&without_weights, b"{}").unwrap();
    let checkpoints = Checkpoints::open(folder.path(), 2, true).unwrap();
    assert!(!half_written.exists() && !without_weights.exists());
    let (model, mut optimizer) = fresh(&settings);
    let state = resume_newest(checkpoints.folder(), &model, &mut optimizer).unwrap().unwrap();
    assert_eq!(state, at);
    assert_eq!(steps(&model, &mut optimizer, &settings, AT, FURTHER), ours);
}
