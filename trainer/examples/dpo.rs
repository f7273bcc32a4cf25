//! Times steps of CLaMP-DPO on given weights and preferences, for `scripts/bench/dpo`.
//!
//!     cargo run --release -p trainer --example dpo -- --weights W.pth --preferences P.json --precision fp32 --steps 40
//!
//! Prints one line of JSON. `--threads 1 --clock cpu` counts the time that the training's thread ran, for a machine
//! that others use too. `--device cpu` or `cuda` takes that one and no other.
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use trainer::{DpoParams, Dtype, Event, Observer, Outcome, Settings};

type Ended<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dpo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Ended<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> = arguments.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let get = |name: &str, default: &'static str| (*given.get(name).unwrap_or(&default)).to_owned();
    let precision = get("--precision", "fp32");
    let (warmup, steps): (u64, u64) = (get("--warmup", "5").parse()?, get("--steps", "40").parse()?);
    let threads: i32 = get("--threads", "0").parse()?;
    if threads > 0 {
        tch::set_num_threads(threads);
    }
    let cpu = get("--clock", "wall") == "cpu";
    let device = torch_ext::device_named(&get("--device", "auto"))?;
    let model = model::weights::load(&PathBuf::from(get("--weights", "")), device)?;
    let settings = Settings {
        precision: match precision.as_str() {
            "bf16" => Dtype::Bf16,
            "fp16" => Dtype::Fp16,
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
        log_every: 1,
        workers: 1,
        ..Settings::default()
    };
    // Dropout off on both sides, so that the losses compare.
    let preferences = PathBuf::from(get("--preferences", ""));
    let dpo = DpoParams { preferences, beta: 0.1, lambda: 10.0, dropout: false };
    let folder = tempfile::tempdir()?;
    torch_ext::keep_freed_memory();
    let mut watch = Watch { cpu, warmup, ..Watch::default() };
    watch.begun = watch.now();
    let outcome = trainer::dpo::train(&settings, &dpo, &model, folder.path(), &false.into(), &mut watch)?;
    let Outcome::Finished(report) = outcome else { return Err("stopped".into()) };
    let seconds = watch.last - watch.first;
    println!(
        "{}",
        serde_json::json!({
            "what": "here", "precision": precision, "device": format!("{device:?}"), "threads": tch::get_num_threads(),
            "clock": if cpu { "cpu" } else { "wall" }, "steps_per_second": steps as f64 / seconds,
            "reference_seconds": watch.started - watch.begun, "train_loss": report.train_loss,
            "pieces": report.chosen + report.rejected,
        })
    );
    Ok(())
}

#[derive(Default)]
struct Watch {
    cpu: bool,
    warmup: u64,
    begun: f64,
    started: f64,
    first: f64,
    last: f64,
}

impl Watch {
    /// Seconds of the wall clock, or that this thread has run.
    fn now(&self) -> f64 {
        let run =
            || std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse::<f64>().ok();
        if self.cpu
            && let Some(nanoseconds) = run()
        {
            return nanoseconds / 1e9;
        }
        std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
    }
}

impl Observer for Watch {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => self.started = self.now(),
            Event::Step { step, .. } => {
                self.last = self.now();
                if *step == self.warmup {
                    self.first = self.last;
                }
            }
            _ => {}
        }
    }
}
