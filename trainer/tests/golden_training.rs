//! Fifty steps against PyTorch, loss by loss (`golden/make_training.py`), in every precision.
use model::patches::Patches;
use model::{Architecture, Batch, NotaGen};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use trainer::{KeyAugmentation, Length, Optimizer, Precision, Schedule, Settings, run_step, schedule_factor};

const BATCH: usize = 4;
const STEPS: usize = 50;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn network() -> NotaGen {
    let architecture = Architecture {
        patch_size: 16,
        patch_length: 64,
        patch_layers: 2,
        char_layers: 2,
        hidden_size: 128,
        dropout: 0.0,
    };
    let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
    let file = model::pth::File::open(&root().join("model/tests/golden/model.pth")).unwrap();
    let weights = file.root().get("model").unwrap();
    let get = |name: &str| Ok(weights.get(name).and_then(|v| v.as_tensor()).map(|t| t.load(Device::Cpu).unwrap()));
    model.load::<model::Error>(get).unwrap();
    model
}

fn pieces(golden: &HashMap<String, Tensor>) -> Vec<Patches> {
    let lengths: Vec<i64> = golden["lengths"].shallow_clone().try_into().unwrap();
    let piece = |(p, length): (usize, &i64)| {
        let rows: Vec<Vec<u8>> = golden["patches"].get(p as i64).slice(0, 0, *length, 1).try_into().unwrap();
        Patches::from_rows(16, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    };
    lengths.iter().enumerate().map(piece).collect()
}

/// Runs the steps of one golden run and checks every number of it.
fn compare(
    run: &str,
    precision: Precision,
    accumulation: usize,
    clip: Option<f64>,
    scaling: Option<(f64, i64)>,
    tolerance: f64,
) {
    let golden: HashMap<String, Tensor> =
        Tensor::read_safetensors(root().join("trainer/tests/golden/training.safetensors"))
            .unwrap()
            .into_iter()
            .collect();
    let of = |name: &str| -> Vec<f64> { golden[&format!("{run}/{name}")].shallow_clone().try_into().unwrap() };
    let settings = Settings {
        seed: 0,
        device: Device::Cpu,
        precision,
        train: PathBuf::new(),
        eval: None,
        pieces: None,
        eval_pieces: None,
        key_augmentation: KeyAugmentation::None,
        learning_rate: 3e-4,
        batch_size: BATCH,
        accumulation_steps: accumulation,
        length: Length::Steps(STEPS as u64),
        early_stopping: None,
        schedule: Schedule::Constant,
        warmup_steps: 10,
        weight_decay: 0.01,
        max_grad_norm: clip,
        checkpoint_every: 1000,
        keep_checkpoints: 1,
        evaluate_every: None,
        log_every: 1,
        activation_checkpointing: false,
        patch_sampling: None,
        resume_from: None,
        workers: 1,
    };
    let (model, pieces) = (network(), pieces(&golden));
    let mut optimizer = Optimizer::new(&model, precision, settings.weight_decay, clip);
    if let Some((scale, interval)) = scaling {
        optimizer = optimizer.with_scaling(Device::Cpu, scale, interval);
    }
    let (losses, norms, scales, rates, skips) =
        (of("loss"), of("grad_norm"), of("scale"), of("learning_rate"), of("skipped"));
    let (mut scheduled, mut worst) = (0, 0f64);
    for step in 0..STEPS {
        let batch: Vec<Patches> = (0..BATCH).map(|i| pieces[(step * BATCH + i) % pieces.len()].clone()).collect();
        let parts = batch.chunks(BATCH / accumulation).map(|part| Batch::new(part, 64).unwrap()).collect();
        let rate = settings.learning_rate * schedule_factor(settings.schedule, settings.warmup_steps, 50, scheduled);
        assert!((rate - rates[step]).abs() < 1e-12, "{run}, step {step}: learning rate {rate}, {} there", rates[step]);
        if scaling.is_some() {
            assert_eq!(optimizer.scale().unwrap().0, scales[step], "{run}, step {step}: scale");
        }
        let (loss, _, done) = run_step(&settings, &model, &mut optimizer, parts, rate, step as u64).unwrap();
        scheduled += u64::from(!done.skipped);
        let off = (loss / losses[step] - 1.0).abs();
        worst = worst.max(off);
        assert!(off < tolerance, "{run}, step {step}: loss {loss} here, {} in PyTorch", losses[step]);
        assert_eq!(done.skipped, skips[step] == 1.0, "{run}, step {step}: skipped");
        if precision == Precision::Fp32 {
            assert!((done.grad_norm / norms[step] - 1.0).abs() < 1e-3, "{run}, step {step}: {done:?}, {}", norms[step]);
        }
    }
    println!("{run}: losses within {worst:.1e} relative over {STEPS} steps");
}

#[test]
fn fp32() {
    compare("fp32", Precision::Fp32, 1, None, None, 1e-4);
}

#[test]
fn fp32_with_accumulation_and_clipping() {
    compare("fp32_accumulation_clipping", Precision::Fp32, 2, Some(0.7), None, 1e-4);
}

#[test]
fn bf16() {
    compare("bf16", Precision::Bf16, 1, None, None, 2e-2);
}

#[test]
fn fp16_with_loss_scaling() {
    compare("fp16", Precision::Fp16, 1, None, Some((1024.0, 2000)), 2e-2);
}

#[test]
fn fp16_skips_steps_that_overflow_and_the_scale_recovers() {
    compare("fp16_overflow", Precision::Fp16, 1, None, Some((1.25 * 2f64.powi(27), 12)), 2e-2);
}

#[test]
fn kinds_of_precision_are_those_of_autocast() {
    assert_eq!(
        [Precision::Fp32, Precision::Bf16, Precision::Fp16].map(Precision::kind),
        [Kind::Float, Kind::BFloat16, Kind::Half]
    );
}
