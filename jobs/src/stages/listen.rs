//! Pieces written while a network learns, for a person to listen to: ABC, MusicXML and MIDI.
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::NotaGen;
use model::generate::{GenerationEvent, Generator, Options, WrittenPiece};
use model::number::Count;
use notation::export::{to_midi, to_musicxml};
use notation::rests;
use serde_json::json;
use trainer::Dtype;

use crate::common::failure::Result;
use crate::common::files;
use crate::common::progress::Reporter;
use crate::recipe;
use crate::stages::generate;

/// What to write, with which network, and where.
pub struct Listen<'a> {
    pub settings: &'a recipe::Listen,
    pub model: &'a NotaGen,
    pub precision: Dtype,
    pub seed: u64,
    /// Gets a folder an epoch.
    pub folder: PathBuf,
    pub stop: &'a AtomicBool,
}

impl Listen<'_> {
    /// Writes the pieces of an epoch if it is one of those. The same seed each time: what changes is the network.
    ///
    /// # Errors
    /// What keeps the pieces from being written; the training need not end for it.
    pub fn epoch(&self, epoch: u64, reporter: &mut Reporter) -> Result<()> {
        if !epoch.is_multiple_of(self.settings.every.get()) {
            return Ok(());
        }
        let folder = self.folder.join(format!("epoch-{epoch:04}"));
        files::make_folder(&folder)?;
        let options = Options {
            samples: self.settings.samples.get(),
            seed: self.seed,
            sampling: self.settings.sampling,
            starts: generate::starts(self.settings.prompts.as_deref().unwrap_or_default(), reporter),
            max_patches: self.settings.max_patches.map(Count::get),
            skip: &|index| file(&folder, index, "abc").is_file(),
            check: &model::generate::check,
            ..Options::default()
        };
        let (begun, most) = (Instant::now(), self.settings.max_seconds.get());
        let mut failure = None;
        let mut generator = Generator::new(self.model, generate::kind(self.model.device(), self.precision))?;
        let summary = generator.run(&options, &mut |event| {
            if let GenerationEvent::Finished(piece) = event
                && let Err(error) = write(&folder, piece, reporter)
            {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            let enough = self.stop.load(Ordering::Relaxed) || begun.elapsed().as_secs_f64() > most;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let of = self.settings.samples;
        reporter.say(format!(
            "{} of {of} pieces of epoch {epoch} to listen to in {}",
            summary.pieces,
            folder.display()
        ));
        reporter.event("samples", json!({ "epoch": epoch, "folder": folder, "pieces": summary.pieces }));
        Ok(())
    }
}

/// The ABC comes last: where it is, the piece is done.
fn write(folder: &Path, piece: &WrittenPiece, reporter: &mut Reporter) -> Result<()> {
    let abc = rests::unreduce_text(&piece.text)?;
    let save = |end: &str, bytes: &[u8]| files::save(&file(folder, piece.index, end), bytes);
    let name = file(folder, piece.index, "abc").display().to_string();
    match to_musicxml(&abc, &name) {
        Ok(score) => save("musicxml", score.output.as_bytes())?,
        Err(error) => reporter.say(format!("no MusicXML: {error}")),
    }
    match to_midi(&abc, &name) {
        Ok(score) => save("mid", &score.output)?,
        Err(error) => reporter.say(format!("no MIDI: {error}")),
    }
    save("abc", abc.as_bytes())
}

fn file(folder: &Path, index: usize, end: &str) -> PathBuf {
    folder.join(format!("{:05}.{end}", index + 1))
}
