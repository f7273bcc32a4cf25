//! Times generation with random weights at a few context lengths, and this machine's peaks to compare it with.
//!
//!     cargo run --release -p model --example generation -- --size small --pieces 32 --patches 512 --precision fp32
//!
//! As `scripts/bench/generation.py` measures the original's way: the cost of one patch at each context, summed up
//! over a piece by trapezoids. Prints one line of JSON. `--threads 1 --clock cpu` counts the time that the thread ran,
//! for a machine that others use too. `--device cpu` or `cuda` takes that one and no other. `--pieces auto` takes as many at
//! once as generation would by itself.
#[path = "../../torch-ext/examples/common/mod.rs"]
mod common;

use common::{Arguments, Clock, Outcome};
use model::generate::{CudaGraphStats, GenerationEvent, Generator, Options, Start};
use model::{Architecture, NotaGen};
use std::ops::ControlFlow;
use std::process::ExitCode;
use tch::{Device, Kind, Tensor};

fn main() -> ExitCode {
    common::run("generation", measure)
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    let architecture = match arguments.get("--size", "small") {
        "large" => Architecture::large(),
        "medium" => Architecture::medium(),
        _ => Architecture::small(),
    };
    let (precision, kind) = arguments.precision();
    let patches: usize = arguments.number("--patches", "512")?;
    let rounds: usize = arguments.number("--rounds", "4")?;
    arguments.set_threads()?;
    let (clock, device) = (arguments.clock(), arguments.device("auto")?);
    let model = NotaGen::new(&architecture, device, 0)?;
    never_end(&model);
    let mut generator = Generator::new(&model, kind)?;
    drop(model);
    let pieces = match arguments.get("--pieces", "32") {
        "auto" => generator.batch_size_for_memory()?,
        number => number.parse()?,
    };

    let mut contexts: Vec<usize> = [0, 2, 4, 8, 12, 16].iter().map(|part| (patches * part / 16).max(1)).collect();
    contexts.dedup();
    let (mut costs, mut recordings) = (Vec::new(), None);
    for &context in &contexts {
        let (seconds, gained) = seconds_a_round(&mut generator, pieces, context, rounds, clock)?;
        costs.push(seconds / pieces as f64);
        recordings = gained;
    }
    let memory = match device {
        Device::Cpu => torch_ext::process_memory()?.peak,
        device => torch_ext::device_memory(device)?.peak,
    };
    let steps = contexts.windows(2).zip(costs.windows(2));
    let seconds: f64 = steps.map(|(n, s)| (n[1] - n[0]) as f64 * (s[0] + s[1]) / 2.0).sum();
    let rate = patches as f64 / seconds;
    let floor = Floor::measure(&architecture, kind, device, pieces, &contexts, clock);
    let curve: serde_json::Map<String, serde_json::Value> =
        contexts.iter().zip(&costs).map(|(n, s)| (n.to_string(), serde_json::json!(round(*s)))).collect();
    println!(
        "{}",
        serde_json::json!({
            "what": "generation here", "hidden_size": architecture.hidden_size, "precision": precision,
            "device": format!("{device:?}"), "threads": tch::get_num_threads(), "clock": clock.name(), "pieces": pieces, "patches": patches,
            "patches_per_second": round(rate), "seconds_a_patch": curve,
            "memory_bytes": memory, "floor": floor.json(), "floor_share": round(rate / floor.patches_per_second()),
            "cuda_graphs": recordings,
        })
    );
    Ok(())
}

fn round(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

/// Control characters get logits of zero, so that top-k drops them and every patch takes all of its characters.
fn never_end(model: &NotaGen) {
    let _no_grad = tch::no_grad_guard();
    for (name, parameter) in model.parameters() {
        if name == "char_level_decoder.base.transformer.wte.weight" {
            let _ = parameter.narrow(0, 0, 32).zero_();
        }
    }
}

/// The shortest round of the batch behind `context` patches.
fn seconds_a_round(
    generator: &mut Generator,
    pieces: usize,
    context: usize,
    rounds: usize,
    clock: Clock,
) -> Outcome<(f64, Option<CudaGraphStats>)> {
    // The opening patch, and lines of one patch each.
    let prompt = (1..context).map(|_| "%23456789012345\n".to_owned()).collect();
    let options = Options {
        samples: pieces,
        batch_size: Some(pieces),
        starts: vec![Start { prompt, music: None }],
        max_patches: Some(rounds + 2),
        ..Options::default()
    };
    let (mut last, mut best) = (None, f64::INFINITY);
    let summary = generator.run(&options, &mut |event| {
        if let GenerationEvent::Round { patches, .. } = event {
            // The first round reads the prompt, the second warms up.
            let now = clock.now();
            if patches > pieces
                && let Some(last) = last.replace(now)
            {
                best = best.min(now - last);
            }
        }
        ControlFlow::Continue(())
    })?;
    if summary.patches != pieces * (rounds + 2) {
        return Err(format!("{} patches instead of {}", summary.patches, pieces * (rounds + 2)).into());
    }
    Ok((best, summary.recordings))
}

/// What the machine allows: operations over the measured peak of a large product, bytes over the measured bandwidth.
struct Floor {
    operations_per_second: f64,
    bytes_per_second: f64,
    compute: f64,
    memory: f64,
}

impl Floor {
    fn measure(a: &Architecture, kind: Kind, device: Device, pieces: usize, contexts: &[usize], clock: Clock) -> Floor {
        // A GPU reaches its peak with more at a time than a CPU needs, and is waited for once in many times.
        let (n, numbers, times) = if device == Device::Cpu { (2048, 1 << 27, 1) } else { (8192, 1 << 29, 20) };
        let best = |work: &dyn Fn() -> Tensor| {
            let time = || {
                let start = clock.now();
                let done = (0..times).map(|_| work()).last();
                let _ = done.map(|done| done.double_value(&[0]));
                (clock.now() - start) / f64::from(times)
            };
            (0..6).map(|_| time()).fold(f64::INFINITY, f64::min)
        };
        let x = Tensor::randn([n, n], (Kind::Float, device)).to_kind(kind);
        let operations_per_second = 2.0 * (n as f64).powi(3) / best(&|| x.matmul(&x).view(-1));
        let long = Tensor::ones([numbers], (Kind::Float, device));
        let bytes_per_second = (4 * numbers) as f64 / best(&|| long.sum(Kind::Float).view(-1));

        let (h, element) = (a.hidden_size as f64, kind.elt_size_in_bytes() as f64);
        let (patch, character) =
            (12.0 * h * h * a.patch_layers as f64, 12.0 * h * h * a.char_layers as f64 + 128.0 * h);
        let steps = a.patch_size as f64;
        let context = contexts.last().copied().unwrap_or(1) as f64 / 2.0;
        let cached = 2.0 * h * context * a.patch_layers as f64;
        Floor {
            operations_per_second,
            bytes_per_second,
            compute: 2.0 * (patch + steps * character + cached) / operations_per_second,
            memory: element * ((patch + steps * character) / pieces as f64 + cached) / bytes_per_second,
        }
    }

    fn patches_per_second(&self) -> f64 {
        1.0 / self.compute.max(self.memory)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "gigaflops": round(self.operations_per_second / 1e9),
            "gigabytes_per_second": round(self.bytes_per_second / 1e9),
            "compute_seconds_a_patch": round(self.compute),
            "memory_seconds_a_patch": round(self.memory),
            "patches_per_second": round(self.patches_per_second()),
        })
    }
}
