//! Times steps of CLaMP-DPO on given weights and preferences, for `scripts/bench/dpo`.
//!
//!     cargo run --release -p trainer --example dpo -- --weights W.pth --preferences P.json --precision fp32 --steps 40
//!
//! Prints one line of JSON. `--threads 1 --clock cpu` counts the time that the training's thread ran, for a machine
//! that others use too. `--device cpu` or `cuda` takes that one and no other.
#[path = "../../torch-ext/examples/common/mod.rs"]
mod common;

use common::{Arguments, Clock, Outcome as Ended};
use std::path::PathBuf;
use std::process::ExitCode;
use tch::Kind;
use trainer::{DpoParams, Dtype, Observer, Outcome, Settings, TrainEvent};

fn main() -> ExitCode {
    common::run("dpo", measure)
}

fn measure(arguments: &Arguments) -> Ended<()> {
    let (precision, kind) = arguments.precision();
    let (warmup, steps): (u64, u64) = (arguments.number("--warmup", "5")?, arguments.number("--steps", "40")?);
    arguments.set_threads()?;
    let (clock, device) = (arguments.clock(), arguments.device("auto")?);
    let model = model::weights::load(&PathBuf::from(arguments.get("--weights", "")), device)?;
    let settings = Settings {
        precision: match kind {
            Kind::BFloat16 => Dtype::Bf16,
            Kind::Half => Dtype::Fp16,
            _ => Dtype::Fp32,
        },
        learning_rate: 1e-6,
        batch_size: 1,
        accumulation_steps: 1,
        steps: Some(warmup + steps),
        weight_decay: 0.01,
        max_grad_norm: Some(1.0),
        checkpoint_every: u64::MAX / 2,
        keep_checkpoints: 1,
        log_every: warmup,
        workers: 1,
        ..Settings::default()
    };
    // Dropout off on both sides, so that the losses compare.
    let preferences = PathBuf::from(arguments.get("--preferences", ""));
    let dpo = DpoParams { preferences, beta: 0.1, lambda: 10.0, dropout: false };
    let folder = tempfile::tempdir()?;
    torch_ext::keep_freed_memory();
    let mut watch = Watch { clock, warmup, ..Watch::default() };
    watch.begun = clock.now();
    let outcome = trainer::dpo::train(&settings, &dpo, &model, folder.path(), &false.into(), &mut watch)?;
    let Outcome::Finished(report) = outcome else { return Err("stopped".into()) };
    let seconds = watch.last - watch.first;
    println!(
        "{}",
        serde_json::json!({
            "what": "here", "precision": precision, "device": format!("{device:?}"), "threads": tch::get_num_threads(),
            "clock": clock.name(), "steps_per_second": steps as f64 / seconds,
            "reference_seconds": watch.started - watch.begun, "train_loss": report.train_loss,
            "pieces": report.chosen + report.rejected,
        })
    );
    Ok(())
}

#[derive(Default)]
struct Watch {
    clock: Clock,
    warmup: u64,
    begun: f64,
    started: f64,
    first: f64,
    last: f64,
}

impl Observer for Watch {
    fn event(&mut self, event: &TrainEvent) {
        match event {
            TrainEvent::Started { .. } => self.started = self.clock.now(),
            TrainEvent::Step { step, .. } => {
                self.last = self.clock.now();
                if *step == self.warmup {
                    self.first = self.last;
                }
            }
            _ => {}
        }
    }
}
