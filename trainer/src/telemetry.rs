//! Events in files: `metrics.jsonl`, and scalars for TensorBoard.
use crate::Result;
use crate::error::At;
use crate::event::{Observer, TrainEvent};
use crate::files::write_atomically;
use crate::tensorboard;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tensorboard_rs::summary_writer::SummaryWriter;

/// Where a training's events go: to the observer, and into files.
pub(crate) struct Telemetry<'a> {
    files: Option<Files>,
    observer: &'a mut dyn Observer,
}

struct Files {
    path: PathBuf,
    metrics: File,
    board: SummaryWriter,
    best: Best,
}

/// The best evaluations as a curve of their own, which TensorBoard draws over that of all: its last point is the best.
struct Best {
    folder: PathBuf,
    board: Option<SummaryWriter>,
}

impl Best {
    fn mark(&mut self, eval_loss: f64, step: usize) -> Result<()> {
        if self.board.is_none() {
            std::fs::create_dir_all(&self.folder).at(&self.folder)?;
        }
        let board = self.board.get_or_insert_with(|| SummaryWriter::new(&self.folder));
        board.add_scalar("eval/loss", eval_loss as f32, step);
        board.flush();
        Ok(())
    }
}

impl<'a> Telemetry<'a> {
    /// Goes on in `folder` after a step. What was written of later steps was not saved, and is removed.
    pub(crate) fn resume(folder: &Path, step: u64, observer: &'a mut dyn Observer) -> Result<Telemetry<'a>> {
        let path = folder.join("metrics.jsonl");
        if path.exists() {
            let is_saved = |line: &&str| {
                let of = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|v| v.get("step")?.as_u64());
                of.is_some_and(|of| of <= step && step > 0)
            };
            let text = std::fs::read(&path).at(&path)?;
            let text = String::from_utf8_lossy(&text);
            let kept: String = text.lines().filter(is_saved).flat_map(|line| [line, "\n"]).collect();
            write_atomically(&path, |part| std::fs::write(part, &kept))?;
        }
        let board = folder.join("tensorboard");
        if step == 0 && board.exists() {
            std::fs::remove_dir_all(&board).at(&board)?;
        }
        for folder in [&board, &board.join("best")] {
            tensorboard::truncate(folder, step)?;
        }
        // The writer panics where it cannot create its folder: create it first, where failure can be told.
        std::fs::create_dir_all(&board).at(&board)?;
        let metrics = OpenOptions::new().create(true).append(true).open(&path).at(&path)?;
        let best = Best { folder: board.join("best"), board: None };
        Ok(Telemetry { files: Some(Files { path, metrics, board: SummaryWriter::new(&board), best }), observer })
    }

    /// Of another rank than 0: nothing is written, and no one is told.
    pub(crate) fn silent(observer: &'a mut dyn Observer) -> Telemetry<'a> {
        Telemetry { files: None, observer }
    }

    /// Tells the observer of the end of an epoch.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        if self.files.is_some() {
            self.observer.epoch(epoch);
        }
    }

    /// Tells the observer of an event, and writes it down.
    pub(crate) fn event(&mut self, event: &TrainEvent) -> Result<()> {
        let Some(Files { path, metrics, board, best: marks }) = &mut self.files else { return Ok(()) };
        self.observer.event(event);
        let mut line = serde_json::to_value(event).unwrap_or_default();
        line["step"] = event.step().into();
        writeln!(metrics, "{line}").at(path)?;
        let step = event.step() as usize;
        let mut scalar = |tag: &str, value: f64| board.add_scalar(tag, value as f32, step);
        match event {
            TrainEvent::Step {
                loss,
                learning_rate,
                grad_norm,
                scale,
                patches_per_second,
                tokens_per_second,
                mfu,
                data_wait,
                memory,
                memory_peak,
                values,
                ..
            } => {
                scalar("train/loss", *loss);
                scalar("train/learning_rate", *learning_rate);
                scalar("train/grad_norm", *grad_norm);
                scalar("train/scale", *scale);
                scalar("speed/patches_per_second", *patches_per_second);
                scalar("speed/tokens_per_second", *tokens_per_second);
                scalar("speed/data_wait", *data_wait);
                if let Some(mfu) = mfu {
                    scalar("speed/mfu", *mfu);
                }
                scalar("speed/memory_gib", *memory as f64 / f64::from(1 << 30));
                scalar("speed/memory_peak_gib", *memory_peak as f64 / f64::from(1 << 30));
                for (name, value) in values {
                    scalar(&format!("train/{name}"), *value);
                }
            }
            TrainEvent::Evaluated { train_loss, eval_loss, best, best_epoch, .. } => {
                scalar("eval/loss", *eval_loss);
                scalar("eval/train_loss", *train_loss);
                scalar("eval/best_epoch", *best_epoch as f64);
                if *best {
                    marks.mark(*eval_loss, step)?;
                }
            }
            _ => {}
        }
        if !matches!(event, TrainEvent::Step { .. }) {
            board.flush();
        }
        Ok(())
    }
}
