//! Times a training alone and in a process group of one rank, NCCL on a GPU and Gloo on a CPU, for `scripts/gpu-check`.
//!
//!     cargo run --release -p trainer --example world -- --weights W.pth --index train.jsonl --steps 60
//!
//! Prints one line of JSON. `--device cpu` or `cuda` takes that one and no other.
#[path = "../../torch-ext/examples/common/mod.rs"]
mod common;

use common::{Arguments, Outcome as Ended};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Device;
use torch_ext::{JoinOptions, ProcessGroup, StoreServer, World};
use trainer::{BatchBy, Dtype, KeyAugmentation, LanguageParams, Observer, Outcome, Ranks, Settings, TrainEvent};

const WARM_UP: u64 = 3;

fn main() -> ExitCode {
    common::run("world", measure)
}

fn measure(arguments: &Arguments) -> Ended<()> {
    let [weights, index] = ["--weights", "--index"].map(|name| PathBuf::from(arguments.get(name, "")));
    let (steps, device) = (arguments.number("--steps", "60")?, arguments.device("auto")?);
    let server = StoreServer::start()?;
    let join = JoinOptions {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        serve: false,
        rank: 0,
        size: 1,
        timeout: Duration::from_secs(60),
        prefix: "one".to_owned(),
    };
    let world = Arc::new(World::join(&join)?);
    let group = Ranks::of(Arc::new(ProcessGroup::new(&world, device)?));
    let turn = |ranks: &Ranks| train(&weights, &index, steps, device, ranks.clone());
    let (alone, ranked, again, ranked_again) =
        (turn(&Ranks::default())?, turn(&group)?, turn(&Ranks::default())?, turn(&group)?);
    println!(
        "{}",
        serde_json::json!({
            "device": format!("{device:?}"), "steps": steps, "alone_loss": alone.1, "group_loss": ranked.1,
            "alone_seconds": alone.0.min(again.0), "group_seconds": ranked.0.min(ranked_again.0),
        })
    );
    Ok(())
}

/// Seconds a step, and the loss of the last one.
fn train(weights: &Path, index: &Path, steps: u64, device: Device, ranks: Ranks) -> Ended<(f64, f64)> {
    let model = model::weights::load(weights, device)?;
    let settings = Settings {
        precision: Dtype::Fp32,
        learning_rate: 1e-4,
        batch_size: 1,
        accumulation_steps: 1,
        steps: Some(WARM_UP + steps),
        weight_decay: 0.01,
        checkpoint_every: u64::MAX / 2,
        keep_checkpoints: 1,
        log_every: 1,
        workers: 1,
        ranks,
        ..Settings::default()
    };
    let language = LanguageParams {
        train: index.to_owned(),
        eval: None,
        pieces: None,
        eval_pieces: None,
        key_augmentation: KeyAugmentation::None,
        patch_sampling: 0,
        batch_by: BatchBy::Random,
    };
    let folder = tempfile::tempdir()?;
    let mut watch = Watch::default();
    match trainer::language::train(&settings, &language, &model, folder.path(), &false.into(), &mut watch)? {
        Outcome::Finished(_) => {}
        Outcome::Interrupted => return Err("stopped".into()),
    }
    let (Some(first), Some(last)) = (watch.first, watch.last) else { return Err("no steps".into()) };
    Ok(((last - first).as_secs_f64() / steps as f64, watch.loss))
}

#[derive(Default)]
struct Watch {
    first: Option<Instant>,
    last: Option<Instant>,
    loss: f64,
}

impl Observer for Watch {
    fn event(&mut self, event: &TrainEvent) {
        if let TrainEvent::Step { step, loss, .. } = event {
            self.last = Some(Instant::now());
            self.loss = *loss;
            if *step == WARM_UP {
                self.first = self.last;
            }
        }
    }
}
