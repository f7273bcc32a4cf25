//! Events in files: `metrics.jsonl`, and scalars for TensorBoard.
use crate::error::At;
use crate::files::write;
use crate::tensorboard;
use crate::{Observer, Result, TrainEvent};
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
    /// The best evaluations as a curve of their own, which TensorBoard draws over that of all: its last point is the best.
    best_board: Option<SummaryWriter>,
}

impl Files {
    fn resume(folder: &Path, step: u64) -> Result<Files> {
        let path = folder.join("metrics.jsonl");
        if path.exists() {
            let step_of = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64();
            let is_saved = |line: &&str| step_of(line).is_some_and(|of| of <= step && step > 0);
            let text = std::fs::read(&path).at(&path)?;
            let text = String::from_utf8_lossy(&text);
            let kept: String = text.lines().filter(is_saved).flat_map(|line| [line, "\n"]).collect();
            write(&path, kept.as_bytes())?;
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
        Ok(Files { path, metrics, board: SummaryWriter::new(&board), best_board: None })
    }
}

impl<'a> Telemetry<'a> {
    /// Goes on in `folder` after a step. What was written of later steps was not saved, and is removed. Without a folder,
    /// on other ranks than 0, nothing is written and no one is told.
    pub(crate) fn resume(folder: Option<&Path>, step: u64, observer: &'a mut dyn Observer) -> Result<Telemetry<'a>> {
        Ok(Telemetry { files: folder.map(|folder| Files::resume(folder, step)).transpose()?, observer })
    }

    /// Tells the observer of the end of an epoch.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        if self.files.is_some() {
            self.observer.epoch(epoch);
        }
    }

    /// Tells the observer of an event, and writes it down.
    pub(crate) fn event(&mut self, event: &TrainEvent) -> Result<()> {
        let Some(Files { path, metrics, board, best_board }) = &mut self.files else { return Ok(()) };
        self.observer.event(event);
        let mut line = serde_json::to_value(event).unwrap_or_default();
        // The step that it belongs to: events before the first step name none, or the one that the training resumes from.
        let step = line.get("step").or(line.get("resumed_from")).and_then(|step| step.as_u64()).unwrap_or(0);
        line["step"] = step.into();
        writeln!(metrics, "{line}").at(path)?;
        let step = step as usize;
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
                    let folder = path.with_file_name("tensorboard").join("best");
                    std::fs::create_dir_all(&folder).at(&folder)?;
                    let board = best_board.get_or_insert_with(|| SummaryWriter::new(&folder));
                    board.add_scalar("eval/loss", *eval_loss as f32, step);
                    board.flush();
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
