//! Times the training loop on pieces of random characters, for `scripts/gpu-check`.
//!
//!     cargo run --release -p trainer --example speed -- large cuda bf16:1 bf16:4 bf16:4:drop bf16:4:varied fp16:1:again
//!
//! A run is a precision, a batch size, and what is special: `drop` (dropout 0.1), `varied` (patches of 1 to 16 characters,
//! pieces of half to full length), `again` (activation checkpointing). Prints one line of JSON each. The memory's peak is that
//! of the process so far. Checkpoints go to the folder for temporary files.
#[path = "../../torch-ext/examples/common/mod.rs"]
mod common;

use common::{Arguments, Outcome as Ended};
use model::patches::Patches;
use model::{Architecture, Batch, Mode, NotaGen};
use std::process::ExitCode;
use std::sync::Arc;
use tch::{Device, Tensor};
use trainer::memory::{StepShape, TrainMemory};
use trainer::{Dtype, Loss, MicroBatch, MicroBatchId, Objective, Observer, Outcome, Settings, Split, TrainEvent};

const STEPS: u64 = 16;
const LOG_EVERY: u64 = 4;

fn main() -> ExitCode {
    common::run("speed", measure)
}

fn measure(arguments: &Arguments) -> Ended<()> {
    let mut words = arguments.words();
    let size = words.next().unwrap_or_default();
    let device = torch_ext::device_named(words.next().unwrap_or_default())?;
    let architecture = match size {
        "large" => Architecture::large(),
        "medium" => Architecture::medium(),
        "small" => Architecture::small(),
        _ => Architecture::sized(64, 2, 2, 128),
    };
    // One network with and one without dropout, made when it is needed.
    let mut networks: [Option<NotaGen>; 2] = [None, None];
    for text in words {
        let run = Run::parse(text)?;
        let architecture = Architecture { dropout: if run.drop { 0.1 } else { 0.0 }, ..architecture.clone() };
        let network = &mut networks[usize::from(run.drop)];
        let network = match network {
            Some(network) => network,
            None => network.insert(NotaGen::new(&architecture, device, 0)?),
        };
        println!("{}", run.time(text, network)?);
    }
    Ok(())
}

struct Run {
    precision: Dtype,
    batch: usize,
    drop: bool,
    varied: bool,
    again: bool,
}

impl Run {
    fn parse(text: &str) -> Ended<Run> {
        let parts: Vec<&str> = text.split(':').collect();
        let precision = match parts.first() {
            Some(&"fp32") => Dtype::Fp32,
            Some(&"bf16") => Dtype::Bf16,
            Some(&"fp16") => Dtype::Fp16,
            _ => return Err(format!("{text}: fp32, bf16 or fp16 first").into()),
        };
        let batch = parts.get(1).ok_or_else(|| format!("{text}: the batch size second"))?.parse()?;
        let has = |what: &str| parts[2..].contains(&what);
        Ok(Run { precision, batch, drop: has("drop"), varied: has("varied"), again: has("again") })
    }

    fn time(&self, name: &str, network: &NotaGen) -> Ended<serde_json::Value> {
        let objective =
            Arc::new(Random { architecture: network.architecture().clone(), batch: self.batch, varied: self.varied });
        let settings = Settings {
            precision: self.precision,
            learning_rate: 1e-5,
            batch_size: self.batch,
            accumulation_steps: 1,
            steps: Some(STEPS),
            weight_decay: 0.01,
            max_grad_norm: Some(1.0),
            checkpoint_every: u64::MAX / 2,
            keep_checkpoints: 1,
            log_every: LOG_EVERY,
            activation_checkpointing: self.again,
            profile: std::env::var("SPEED_PROFILE").ok().map(|_| 3),
            workers: 4,
            ..Settings::default()
        };
        let folder = tempfile::tempdir()?;
        let mut watch = Watch::default();
        match trainer::train(&settings, &objective, network, folder.path(), &false.into(), &mut watch)? {
            Outcome::Finished(_) => {}
            Outcome::Interrupted => return Err("stopped".into()),
        }
        if let Ok(path) = std::env::var("SPEED_PROFILE") {
            std::fs::copy(folder.path().join("profile.json"), path)?;
        }
        // The first window gets ready.
        let rates = watch.rates.get(1..).filter(|rates| !rates.is_empty()).ok_or("too few steps")?;
        let rate = rates.len() as f64 / rates.iter().map(|rate| 1.0 / rate).sum::<f64>();
        let a = network.architecture();
        let a_patch = a.patch_operations(a.patch_length as f64) + 16.0 * a.character_operations(16.0);
        let step = StepShape {
            pieces: self.batch as u64,
            predicted: None,
            precision: self.precision,
            checkpointing: self.again,
            dropout: self.drop,
            offload: false,
            cpu: network.device() == Device::Cpu,
        };
        Ok(serde_json::json!({
            "run": name, "device": format!("{:?}", network.device()), "patches_per_second": rate,
            "teraflops": (!self.varied).then_some(rate * 3.0 * a_patch / 1e12), "data_wait": watch.data_wait,
            "memory": watch.memory, "memory_peak": watch.memory_peak, "memory_planned": TrainMemory::of(a, &step).device(),
            "skipped": watch.skipped, "loss": watch.loss,
        }))
    }
}

#[derive(Default)]
struct Watch {
    rates: Vec<f64>,
    data_wait: f64,
    memory: u64,
    memory_peak: u64,
    skipped: u64,
    loss: f64,
}

impl Observer for Watch {
    fn event(&mut self, event: &TrainEvent) {
        if let TrainEvent::Step { patches_per_second, data_wait, memory, memory_peak, skipped, loss, .. } = event {
            self.rates.push(*patches_per_second);
            (self.data_wait, self.memory, self.memory_peak) = (*data_wait, *memory, *memory_peak);
            (self.skipped, self.loss) = (*skipped, *loss);
        }
    }
}

/// Pieces of random characters.
struct Random {
    architecture: Architecture,
    batch: usize,
    varied: bool,
}

impl Random {
    fn piece(&self, number: u64) -> trainer::Result<Patches> {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        // Xorshift (Marsaglia 2003).
        let mut draw = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (size, most) = (self.architecture.patch_size as usize, self.architecture.patch_length as u64);
        let patches = if self.varied { most / 2 + draw(most / 2) + 1 } else { most };
        let row = |_| -> Vec<u8> {
            let filled = if self.varied { 1 + draw(size as u64) as usize } else { size };
            (0..size).map(|t| if t < filled { 40 + draw(80) as u8 } else { 0 }).collect()
        };
        let rows: Vec<Vec<u8>> = (0..patches).map(row).collect();
        Ok(Patches::from_rows(size, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>())?)
    }
}

impl Objective for Random {
    type Network = NotaGen;
    type Input = Batch;

    fn examples(&self, split: Split) -> usize {
        if split == Split::Train { STEPS as usize * self.batch } else { 0 }
    }

    fn epoch(&self, _: u64) -> Vec<Vec<usize>> {
        trainer::in_order(self.examples(Split::Train), self.batch)
    }

    fn load(&self, _: MicroBatchId, examples: &[usize]) -> trainer::Result<MicroBatch<Batch>> {
        let pieces = examples.iter().map(|&i| self.piece(i as u64 + 1)).collect::<trainer::Result<Vec<_>>>()?;
        let batch = Batch::new(&pieces, self.architecture.patch_length)?;
        Ok(trainer::language::micro_batch(&self.architecture, batch))
    }

    fn tensors(batch: &mut Batch) -> Vec<&mut Tensor> {
        batch.tensors_mut()
    }

    fn loss(&self, network: &NotaGen, batch: Batch, mode: Mode) -> trainer::Result<Loss> {
        trainer::language::loss(network, batch, mode)
    }
}
