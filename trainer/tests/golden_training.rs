//! Fifty steps against PyTorch, loss by loss (`golden/make_training.py`), in every precision.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{BATCH, golden, network, parts, pieces, settings};
use tch::Kind;
use trainer::{Dtype, Optimizer, Settings, StepResult, language, run_step};

const STEPS: usize = 50;

/// Runs the steps of one golden run and checks every number of it.
fn compare(
    run: &str,
    precision: Dtype,
    accumulation: usize,
    clip: Option<f64>,
    scaling: Option<(f64, i64)>,
    tolerance: f64,
) {
    let golden = golden();
    let of = |name: &str| -> Vec<f64> { golden[&format!("{run}/{name}")].shallow_clone().try_into().unwrap() };
    let settings =
        Settings { batch_size: BATCH, accumulation_steps: accumulation, max_grad_norm: clip, ..settings(precision) };
    let (model, pieces) = (network(), pieces(&golden));
    let mut optimizer = Optimizer::new(&model, &settings);
    if let Some((scale, interval)) = scaling {
        optimizer = optimizer.with_scaling(scale, interval);
    }
    let (losses, norms, scales, rates, skips) =
        (of("loss"), of("grad_norm"), of("scale"), of("learning_rate"), of("skipped"));
    let rate = |step| settings.learning_rate * settings.factor(50, step);
    optimizer.set_learning_rates(&(0..STEPS as u64).map(rate).collect::<Vec<_>>());
    let (mut scheduled, mut worst) = (0, 0f64);
    for step in 0..STEPS {
        let parts = parts(&pieces, step, accumulation);
        let rate = rate(scheduled);
        assert!((rate - rates[step]).abs() < 1e-12, "{run}, step {step}: learning rate {rate}, {} there", rates[step]);
        if scaling.is_some() {
            assert_eq!(optimizer.scale().unwrap().0, scales[step], "{run}, step {step}: scale");
        }
        let of = |batch, mode| language::loss(&model, batch, mode);
        let StepResult { loss, report: done, .. } =
            run_step(&settings, &mut optimizer, parts, step as u64, of).unwrap();
        scheduled += u64::from(!done.skipped);
        let off = (loss / losses[step] - 1.0).abs();
        worst = worst.max(off);
        assert!(off < tolerance, "{run}, step {step}: loss {loss} here, {} in PyTorch", losses[step]);
        assert_eq!(done.skipped, skips[step] == 1.0, "{run}, step {step}: skipped");
        if precision == Dtype::Fp32 {
            assert!((done.grad_norm / norms[step] - 1.0).abs() < 1e-3, "{run}, step {step}: {done:?}, {}", norms[step]);
        }
    }
    println!("{run}: losses within {worst:.1e} relative over {STEPS} steps");
}

#[test]
fn fp32() {
    compare("fp32", Dtype::Fp32, 1, None, None, 1e-4);
}

#[test]
fn fp32_with_accumulation_and_clipping() {
    compare("fp32_accumulation_clipping", Dtype::Fp32, 2, Some(0.7), None, 1e-4);
}

#[test]
fn bf16() {
    compare("bf16", Dtype::Bf16, 1, None, None, 2e-2);
}

#[test]
fn fp16_with_loss_scaling() {
    compare("fp16", Dtype::Fp16, 1, None, Some((1024.0, 2000)), 2e-2);
}

#[test]
fn fp16_skips_steps_that_overflow_and_the_scale_recovers() {
    compare("fp16_overflow", Dtype::Fp16, 1, None, Some((1.25 * 2f64.powi(27), 12)), 2e-2);
}

#[test]
fn kinds_of_precision_are_those_of_autocast() {
    assert_eq!([Dtype::Fp32, Dtype::Bf16, Dtype::Fp16].map(Dtype::kind), [Kind::Float, Kind::BFloat16, Kind::Half]);
}
