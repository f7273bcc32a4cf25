//! What a training says while it runs: events for a person, `metrics.jsonl` and TensorBoard scalars for later.
use crate::Result;
use crate::error::At;
use crate::optimizer::Exchange;
use notation::files::{Flush, write_atomically};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use tensorboard_rs::summary_writer::SummaryWriter;

/// Something that happened in a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The training begins, or goes on.
    Started {
        /// Pieces trained on.
        train_pieces: usize,
        /// Pieces evaluated on.
        eval_pieces: usize,
        /// Optimizer steps of an epoch.
        steps_per_epoch: u64,
        /// Optimizer steps in all.
        total_steps: u64,
        /// Steps done before.
        resumed_from: u64,
    },
    /// Optimizer steps were taken.
    Step {
        /// Steps done.
        step: u64,
        /// Epoch, counted from 1.
        epoch: u64,
        /// Mean loss since the last such event, in nats a character.
        loss: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Norm of the gradients before clipping.
        grad_norm: f64,
        /// Loss scale; 1 without loss scaling.
        scale: f64,
        /// Patches a second since the last such event.
        patches_per_second: f64,
        /// Characters whose probability was computed, a second, since then.
        tokens_per_second: f64,
        /// Model FLOPs utilisation since then: the share used of what the devices can do (`Settings::peak`).
        mfu: Option<f64>,
        /// The share of the time since then in which a step waited for its batch.
        data_wait: f64,
        /// Memory in use now, in bytes: of the device, or of the process on a CPU.
        memory: u64,
        /// The most that was in use.
        memory_peak: u64,
        /// Steps skipped so far.
        skipped: u64,
        /// Seconds of training, interruptions left out.
        seconds: f64,
        /// The objective's other numbers: means since the last such event.
        #[serde(flatten)]
        values: BTreeMap<String, f64>,
    },
    /// How the gradients of a step were exchanged between ranks: told once, of the first step that is logged.
    Exchange {
        /// The step.
        step: u64,
        /// How.
        #[serde(flatten)]
        exchange: Exchange,
    },
    /// Something that a person should know about the last steps.
    Warning {
        /// Steps done.
        step: u64,
        /// What.
        message: String,
    },
    /// A Chrome trace of some steps was written.
    Profiled {
        /// Steps done.
        step: u64,
        /// Where it is.
        path: PathBuf,
    },
    /// Work before the first step: the reference of a preference training.
    Reference {
        /// Pieces done.
        done: usize,
        /// Pieces in all.
        total: usize,
    },
    /// A step was left out because its loss or gradient was not finite.
    Skipped {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
    },
    /// The evaluation pieces were run.
    Evaluated {
        /// Steps done.
        step: u64,
        /// Epochs begun.
        epoch: u64,
        /// Mean training loss since the last evaluation.
        train_loss: f64,
        /// Mean loss over the characters of the evaluation pieces.
        eval_loss: f64,
        /// Whether it is the best so far.
        best: bool,
        /// The epoch of the best so far.
        best_epoch: u64,
        /// Seconds of training, interruptions left out.
        seconds: f64,
    },
    /// A checkpoint was handed to the writer.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Where it goes.
        path: PathBuf,
    },
    /// The evaluation loss has risen for as long as `early_stopping` allows.
    StoppedEarly {
        /// Steps done.
        step: u64,
        /// The best epoch.
        best_epoch: u64,
    },
}

impl Event {
    /// The step that the event belongs to.
    fn step(&self) -> u64 {
        match self {
            Event::Started { resumed_from, .. } => *resumed_from,
            Event::Reference { .. } => 0,
            Event::Step { step, .. }
            | Event::Exchange { step, .. }
            | Event::Warning { step, .. }
            | Event::Profiled { step, .. }
            | Event::Skipped { step, .. }
            | Event::Evaluated { step, .. }
            | Event::Checkpoint { step, .. }
            | Event::StoppedEarly { step, .. } => *step,
        }
    }
}

/// Someone who watches a training.
pub trait Observer {
    /// Takes note of an event.
    fn event(&mut self, event: &Event);

    /// An epoch, counted from 1, is over, and evaluated. What it does with the weights as they are is not counted as time
    /// of the training. It may be told again of an epoch that a training goes on after.
    fn epoch(&mut self, epoch: u64) {
        let _ = epoch;
    }
}

/// Nobody.
impl Observer for () {
    fn event(&mut self, _: &Event) {}
}

/// Writes events down.
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
    /// Goes on in `folder`; what was written after `step` was not saved and is dropped.
    pub(crate) fn resume(folder: &Path, step: u64, observer: &'a mut dyn Observer) -> Result<Telemetry<'a>> {
        let path = folder.join("metrics.jsonl");
        if path.exists() {
            let kept = write_atomically::<io::Error>(&path, Flush::Later, |kept| {
                for line in BufReader::new(File::open(&path)?).lines() {
                    let line = line?;
                    let of =
                        serde_json::from_str::<serde_json::Value>(&line).ok().and_then(|v| v.get("step")?.as_u64());
                    if of.is_some_and(|of| of <= step && step > 0) {
                        writeln!(kept, "{line}")?;
                    }
                }
                Ok(())
            });
            kept.at(&path)?;
        }
        let board = folder.join("tensorboard");
        if step == 0 && board.exists() {
            std::fs::remove_dir_all(&board).at(&board)?;
        }
        // The writer panics where it cannot create its folder: create it first, where failure can be told.
        std::fs::create_dir_all(&board).at(&board)?;
        let metrics = OpenOptions::new().create(true).append(true).open(&path).at(&path)?;
        let best = Best { folder: board.join("best"), board: None };
        Ok(Telemetry { files: Some(Files { path, metrics, board: SummaryWriter::new(&board), best }), observer })
    }

    /// Nothing is written and no one told: rank 0 does that.
    pub(crate) fn silent(observer: &'a mut dyn Observer) -> Telemetry<'a> {
        Telemetry { files: None, observer }
    }

    /// An epoch is over.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        if self.files.is_some() {
            self.observer.epoch(epoch);
        }
    }

    pub(crate) fn event(&mut self, event: &Event) -> Result<()> {
        let Some(Files { path, metrics, board, best: marks }) = &mut self.files else { return Ok(()) };
        self.observer.event(event);
        let mut line = serde_json::to_value(event).unwrap_or_default();
        line["step"] = event.step().into();
        writeln!(metrics, "{line}").at(path)?;
        let step = event.step() as usize;
        let mut scalar = |tag: &str, value: f64| board.add_scalar(tag, value as f32, step);
        match event {
            Event::Step {
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
            Event::Evaluated { train_loss, eval_loss, best, best_epoch, .. } => {
                scalar("eval/loss", *eval_loss);
                scalar("eval/train_loss", *train_loss);
                scalar("eval/best_epoch", *best_epoch as f64);
                if *best {
                    marks.mark(*eval_loss, step)?;
                }
            }
            _ => {}
        }
        if !matches!(event, Event::Step { .. }) {
            board.flush();
        }
        Ok(())
    }
}
