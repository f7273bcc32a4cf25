//! CLaMP-DPO against PyTorch (`golden/make_dpo.py`): losses, gradients, five steps with clipping.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{network, pieces, root, settings};
use model::{Batch, NotaGen};
use std::collections::HashMap;
use tch::{Kind, Tensor};
use trainer::{
    DpoParams, Dtype, Loss, MicroBatch, Optimizer, Outcome, Settings, StepResult, TrainEvent, Workload, dpo, run_step,
};

const BETA: f64 = 0.1;
const LAMBDA: f64 = 10.0;
const STEPS: usize = 5;

type Golden = HashMap<String, Tensor>;

fn golden() -> Golden {
    Tensor::read_safetensors(root().join("trainer/tests/golden/dpo.safetensors")).unwrap().into_iter().collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

fn dpo_settings() -> Settings {
    Settings {
        learning_rate: 1e-5,
        batch_size: 2,
        steps: Some(STEPS as u64),
        warmup_steps: 0,
        max_grad_norm: Some(1.0),
        ..settings(Dtype::Fp32)
    }
}

/// How far the weights have moved, and how far from where PyTorch's moved to. Where the true gradient is nought (a
/// key's bias) Adam makes steps of up to the learning rate from rounding alone.
fn same_weights(model: &NotaGen, golden: &Golden, run: &str) {
    let start = network();
    for ((name, ours), (_, start)) in model.parameters().iter().zip(start.parameters()) {
        let few = |tensor: &Tensor| {
            let flat = tensor.detach().flatten(0, -1);
            let count = flat.numel() as i64;
            flat.slice(0, 0, count, (count / 256).max(1)).slice(0, 0, 256, 1)
        };
        let (ours, start, theirs) = (few(ours), few(start), &golden[&format!("{run}/model/{name}")]);
        let off = (&ours - theirs).abs().max().double_value(&[]);
        assert!(off < 1e-4, "{run}, {name}: {off} off");
        if !name.ends_with("c_attn.bias") && name != model::UNUSED_PARAMETER {
            let moved = (theirs - start).norm().double_value(&[]);
            let portion = (&ours - theirs).norm().double_value(&[]) / moved;
            assert!(moved > 0.0 && portion < 0.02, "{run}, {name}: {portion} of the {moved} that it moved");
        }
    }
}

#[test]
fn loss_and_gradient_of_given_log_probabilities() {
    let golden = golden();
    let flat = |name: &str| golden[&format!("loss/{name}")].flatten(0, -1);
    let policy = flat("policy").set_requires_grad(true);
    let losses = numbers(&golden["loss/loss"]);
    let Loss { sum, values } = dpo::loss(&policy, &flat("reference"), BETA, LAMBDA).unwrap();
    assert!((sum.double_value(&[]) / losses.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    sum.backward();
    let off = (policy.grad() - flat("gradient")).abs().max().double_value(&[]);
    assert!(off < 1e-6, "gradient {off} off");

    let (policy, reference) = (numbers(&policy), numbers(&flat("reference")));
    let pairs = policy.len() / 2;
    let gain = |i: usize| policy[i] - reference[i];
    let mean = |f: &dyn Fn(usize) -> f64| (0..pairs).map(f).sum::<f64>();
    let expected = [
        mean(&|i| f64::from(gain(i) > gain(pairs + i))),
        mean(&|i| BETA * (gain(i) - gain(pairs + i))),
        mean(&|i| policy[i]),
        mean(&|i| policy[pairs + i]),
        mean(&gain),
        mean(&|i| gain(pairs + i)),
        mean(&|i| -(gain(i) + gain(pairs + i)) / 2.0),
        mean(&|i| f64::from(gain(i) < 0.0)),
    ];
    for (i, (ours, expected)) in numbers(&values.unwrap()).iter().zip(expected).enumerate() {
        assert!((ours - expected).abs() < 1e-2, "value {i}: {ours}, not {expected}");
    }
}

/// Five steps of two pairs each, in one part or in two.
fn steps(run: &str, parts: usize, share: f64) {
    let golden = golden();
    let of = |name: &str| &golden[&format!("{run}/{name}")];
    let pieces = pieces(&common::golden());
    let settings = dpo_settings();
    let model = network();
    let mut optimizer = Optimizer::new(&model, &settings);
    let loss = |(batch, reference): (Batch, Tensor), mode| {
        dpo::loss(&model.log_probability(&batch, mode)?, &reference, BETA, LAMBDA)
    };
    for step in 0..STEPS {
        let pairs: Vec<i64> = of("pairs").get(step as i64).flatten(0, -1).try_into().unwrap();
        let reference = numbers(&of("reference").get(step as i64));
        let part = |places: &[usize]| {
            // Chosen ones first.
            let order: Vec<usize> = [0, 1].iter().flat_map(|side| places.iter().map(move |p| 2 * p + side)).collect();
            let of_part: Vec<_> = order.iter().map(|&i| pieces[pairs[i] as usize].clone()).collect();
            let values: Vec<f32> = order.iter().map(|&i| reference[i] as f32).collect();
            let input = (Batch::new(&of_part, 64).unwrap(), Tensor::from_slice(&values));
            MicroBatch { input, weight: places.len() as i64, work: Workload::default() }
        };
        let step_of = if parts == 1 { vec![part(&[0, 1])] } else { vec![part(&[0]), part(&[1])] };
        let StepResult { loss, report, values, .. } =
            run_step(&settings, &mut optimizer, step_of, step as u64, loss).unwrap();
        let (expected, norm) = (numbers(of("loss"))[step], numbers(of("grad_norm"))[step]);
        assert!((loss / expected - 1.0).abs() < 1e-4, "{run}, step {step}: loss {loss} here, {expected} in PyTorch");
        assert!((report.grad_norm / norm - 1.0).abs() < 1e-3, "{run}, step {step}: {report:?}, {norm}");
        assert_eq!(values[7], share, "{run}, step {step}: share of pairs in which lambda acts");
    }
    same_weights(&model, &golden, run);
}

#[test]
fn five_steps_in_which_lambda_acts() {
    steps("acts", 1, 1.0);
}

#[test]
fn five_steps_in_which_lambda_does_not_act() {
    steps("rests", 1, 0.0);
}

#[test]
fn accumulated_parts_are_one_step() {
    steps("acts", 2, 1.0);
}

#[test]
fn a_training_from_files_is_the_originals() {
    let folder = tempfile::tempdir().unwrap();
    let texts = std::fs::read_to_string(root().join("trainer/tests/golden/dpo.json")).unwrap();
    let texts: HashMap<String, String> = serde_json::from_str(&texts).unwrap();
    let lists = texts.iter().map(|(side, text)| {
        let path = folder.path().join(format!("{side}.abc"));
        std::fs::write(&path, text).unwrap();
        (side.clone(), vec![path])
    });
    let preferences = folder.path().join("preferences.json");
    std::fs::write(&preferences, serde_json::to_string(&lists.collect::<HashMap<_, _>>()).unwrap()).unwrap();
    let settings = Settings { batch_size: 1, ..dpo_settings() };
    let of = DpoParams { preferences, beta: BETA, lambda: LAMBDA, dropout: true };
    let (golden, model) = (golden(), network());
    let mut events = Events::default();
    let outcome = dpo::train(&settings, &of, &model, folder.path(), &false.into(), &mut events).unwrap();
    let Outcome::Finished(report) = outcome else { panic!("{outcome:?}") };
    for (step, (loss, expected)) in events.0.iter().zip(numbers(&golden["whole/loss"])).enumerate() {
        assert!((loss / expected - 1.0).abs() < 1e-4, "step {step}: loss {loss} here, {expected} in PyTorch");
    }
    assert_eq!(events.0.len(), STEPS);
    same_weights(&model, &golden, "whole");
    assert_eq!((report.steps, report.chosen, report.rejected, report.accuracy), (5, 1, 1, 1.0));
    let reference = numbers(&golden["whole/reference"]);
    assert!((report.chosen_logp_start / reference[0] - 1.0).abs() < 1e-5);
    assert!((report.rejected_logp_start / reference[1] - 1.0).abs() < 1e-5);
}

#[derive(Default)]
struct Events(Vec<f64>);

impl trainer::Observer for Events {
    fn event(&mut self, event: &TrainEvent) {
        if let TrainEvent::Step { loss, .. } = event {
            self.0.push(*loss);
        }
    }
}
