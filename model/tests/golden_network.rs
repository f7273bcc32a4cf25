//! The network against transformers' GPT-2 in float32 (`golden/make_model.py`).
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
use model::patches::Patches;
use model::{Architecture, Batch, Mode, NotaGen};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn golden() -> HashMap<String, Tensor> {
    Tensor::read_safetensors(folder().join("model.safetensors")).unwrap().into_iter().collect()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn network() -> NotaGen {
    let architecture = Architecture { dropout: 0.0, ..Architecture::sized(64, 2, 2, 128) };
    let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
    let state = model::weights::load_state(&folder().join("model.pth")).unwrap();
    model.load::<model::Error>(|name| Ok(state.load(name, Device::Cpu)?)).unwrap();
    model
}

fn pieces(golden: &HashMap<String, Tensor>) -> Vec<Patches> {
    let (patches, mask) = (&golden["patches"], &golden["mask"]);
    (0..patches.size()[0])
        .map(|p| {
            let length = mask.get(p).sum(Kind::Int64).int64_value(&[]);
            let rows = patches.get(p).slice(0, 0, length, 1).to_kind(Kind::Uint8);
            let rows: Vec<Vec<u8>> = rows.try_into().unwrap();
            Patches::from_rows(16, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
        })
        .collect()
}

fn close(what: &str, ours: f64, golden: f64, tolerance: f64) {
    assert!((ours - golden).abs() <= tolerance, "{what}: {ours} here, {golden} in PyTorch");
}

#[test]
fn logits_are_within_1e_4_in_float32() {
    let golden = golden();
    let batch = Batch::new(&pieces(&golden), 64).unwrap();
    let ours = network().logits(&batch, Mode::EVAL).unwrap();
    // The original's rows are the targets of all pieces in order: (targets, 16 or 17, 128).
    let first_of: Vec<i64> = vec![0, golden["mask"].get(0).sum(Kind::Int64).int64_value(&[]) - 1];
    let mut worst: f64 = 0.0;
    for (token, (piece, place, at)) in batch.order().into_iter().enumerate() {
        let theirs = golden["logits"].get(first_of[piece] + place as i64 - 1).get(at as i64);
        let difference: f64 = (ours.get(token as i64) - theirs).abs().max().double_value(&[]);
        worst = worst.max(difference);
    }
    println!("largest difference of a logit: {worst:e}");
    assert!(worst < 1e-4, "{worst}");
    assert_eq!(batch.tokens, golden["tokens"].sum(Kind::Int64).int64_value(&[]));
}

#[test]
fn loss_is_within_1e_5_and_gradients_within_1e_4_relative() {
    let golden = golden();
    let batch = Batch::new(&pieces(&golden), 64).unwrap();
    let theirs = golden["loss"].double_value(&[]);
    for checkpointing in [None, Some(model::Checkpointing { seed: 1, autocast: Kind::Float, distinct_seeds: true })] {
        let model = network();
        let loss = model.loss(&batch, Mode { train: true, checkpointing }).unwrap().mean().unwrap();
        close("loss", loss.double_value(&[]), theirs, 1e-5 * theirs);
        loss.backward();
        for (name, parameter) in model.parameters() {
            let Some(expected) = golden.get(&format!("gradient/{name}")) else {
                assert_eq!(name, model::UNUSED_PARAMETER);
                continue;
            };
            let norm = golden[&format!("gradient_norm/{name}")].double_value(&[]);
            let gradient = parameter.grad();
            close(name, gradient.norm().double_value(&[]), norm, 1e-4 * norm);
            let sample = gradient.flatten(0, -1).slice(0, 0, None, 7);
            let difference = (sample - expected).norm().double_value(&[]);
            assert!(difference <= 1e-4 * norm, "{name}: gradient off by {difference} of {norm}");
        }
    }
}

#[test]
fn log_probability_of_each_piece() {
    let golden = golden();
    let batch = Batch::new(&pieces(&golden), 64).unwrap();
    let ours: Vec<f64> = network().log_probability(&batch, Mode::EVAL).unwrap().try_into().unwrap();
    let theirs: Vec<f64> = golden["log_probability"].to_kind(Kind::Double).shallow_clone().try_into().unwrap();
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        close("log-probability", ours, theirs, 1e-5 * theirs.abs());
    }
}

#[test]
fn half_precision_losses_are_within_2e_2() {
    let golden = golden();
    let batch = Batch::new(&pieces(&golden), 64).unwrap();
    for (kind, name) in [(Kind::BFloat16, "loss_bf16"), (Kind::Half, "loss_fp16")] {
        let _autocast = torch_ext::Autocast::new(Device::Cpu, kind).unwrap();
        let loss = network().loss(&batch, Mode::EVAL).unwrap().mean().unwrap().double_value(&[]);
        let theirs = golden[name].double_value(&[]);
        close(name, loss, theirs, 2e-2 * theirs);
    }
}

#[test]
fn pieces_do_not_touch_each_other_and_order_does_not_matter() {
    let mut pieces = pieces(&golden());
    let model = network();
    let together: Vec<f64> =
        model.log_probability(&Batch::new(&pieces, 64).unwrap(), Mode::EVAL).unwrap().try_into().unwrap();
    pieces.reverse();
    let reversed: Vec<f64> =
        model.log_probability(&Batch::new(&pieces, 64).unwrap(), Mode::EVAL).unwrap().try_into().unwrap();
    close("the first piece", reversed[1], together[0], 1e-3);
    let alone = model.log_probability(&Batch::new(&pieces[..1], 64).unwrap(), Mode::EVAL).unwrap();
    close("a piece alone", alone.double_value(&[0]), reversed[0], 1e-3);
}

#[test]
fn parameter_counts_are_those_of_the_paper() {
    // The original's README: 110M, 244M, 516M.
    for (architecture, millions) in
        [(Architecture::small(), 110), (Architecture::medium(), 244), (Architecture::large(), 516)]
    {
        let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
        let count: usize = model.parameters().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!((count as f64 / 1e6).round() as i64, millions, "{count}");
    }
}
