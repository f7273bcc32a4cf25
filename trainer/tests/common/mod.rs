//! What the tests against PyTorch share: the golden network, its pieces and settings.
#![allow(dead_code)]
use model::patches::Patches;
use model::{Architecture, Batch, NotaGen};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};
use trainer::{Dtype, MicroBatch, Settings, language};

pub const BATCH: usize = 4;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn architecture() -> Architecture {
    Architecture { dropout: 0.0, ..Architecture::sized(64, 2, 2, 128) }
}

pub fn network() -> NotaGen {
    let model = NotaGen::new(&architecture(), Device::Cpu, 0).unwrap();
    let state = model::weights::load_state(&root().join("model/tests/golden/model.pth")).unwrap();
    model.load::<model::Error>(|name| Ok(state.load(name, Device::Cpu)?)).unwrap();
    model
}

pub fn pieces(golden: &HashMap<String, Tensor>) -> Vec<Patches> {
    let lengths: Vec<i64> = golden["lengths"].shallow_clone().try_into().unwrap();
    let piece = |(p, length): (usize, &i64)| {
        let rows: Vec<Vec<u8>> = golden["patches"].get(p as i64).slice(0, 0, *length, 1).try_into().unwrap();
        Patches::from_rows(16, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    };
    lengths.iter().enumerate().map(piece).collect()
}

pub fn golden() -> HashMap<String, Tensor> {
    Tensor::read_safetensors(root().join("trainer/tests/golden/training.safetensors")).unwrap().into_iter().collect()
}

/// The pieces of a step, as the golden script takes them.
pub fn parts(pieces: &[Patches], step: usize, accumulation: usize) -> Vec<MicroBatch<Batch>> {
    let batch: Vec<Patches> = (0..BATCH).map(|i| pieces[(step * BATCH + i) % pieces.len()].clone()).collect();
    batch
        .chunks(BATCH / accumulation)
        .map(|part| language::micro_batch(&architecture(), Batch::new(part, 64).unwrap()))
        .collect()
}

pub fn settings(precision: Dtype) -> Settings {
    Settings {
        precision,
        learning_rate: 3e-4,
        batch_size: BATCH,
        accumulation_steps: 1,
        steps: Some(50),
        warmup_steps: 10,
        weight_decay: 0.01,
        checkpoint_every: 1000,
        keep_checkpoints: 1,
        log_every: 1,
        workers: 1,
        ..Settings::default()
    }
}
