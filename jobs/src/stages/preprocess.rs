//! Scores in; interleaved ABC, the form NotaGen trains on, and indexes out.
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use notation::preprocess::{self, Keys, PreprocessOptions, Progress};
use serde_json::json;

use crate::common::failure::{Failure, Result};
use crate::common::progress::Reporter;
use crate::plan::state::Outputs;
use crate::recipe::Preprocess;
use crate::stages::context::{Context, Ended};

pub fn run(stage: &Preprocess, context: &mut Context) -> Result<Ended> {
    let options = PreprocessOptions {
        interleaved: stage.interleaved.clone(),
        pack: stage.pack.clone(),
        prompts: stage.prompts.clone(),
        eval_split: stage.eval_split.get(),
        seed: stage.seed.unwrap_or(0),
        keys: stage.keys.unwrap_or(Keys::All),
        ..PreprocessOptions::new(&stage.scores, "", &stage.augmented)
    };
    convert(options, context.stop, context.reporter)
}

/// Converts a folder and says what became of it.
pub fn convert(mut options: PreprocessOptions, stop: &Arc<AtomicBool>, reporter: &mut Reporter) -> Result<Ended> {
    options.stop = Some(Arc::clone(stop));
    let mut files = ["", "_train", "_eval"].map(|part| options.index(part)).to_vec();
    files.extend(options.interleaved.iter().chain(&options.pack).cloned());
    if options.keys != Keys::None {
        files.push(options.augmented.clone());
    }
    let watched = Mutex::new(&mut *reporter);
    let report = preprocess::run(&options, &|progress| {
        let Progress::Piece { done, pieces, piece, unchanged } = progress else { return };
        let mut reporter = watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &piece.refused
            && !unchanged
        {
            reporter.say(format!("refused: {reason}"));
        }
        reporter.progress(done as u64, Some(pieces as u64), "pieces");
    });
    let report = match report {
        Ok(report) => report,
        Err(notation::Error::Stopped) => return Ok(Ended::Interrupted),
        Err(error) => return Err(Failure::failed(error.to_string()).hint_if(error.hint())),
    };
    if report.converted == 0 {
        return Err(Failure::failed(format!("{}: every piece was refused", options.scores.display()))
            .hint(format!("{} says why, piece by piece", options.index("_report").display())));
    }
    let duplicates = match report.duplicates {
        0 => String::new(),
        duplicates => format!(", {duplicates} the same as others"),
    };
    reporter.say(format!(
        "{} pieces ({} for training, {} for evaluation; {} of them repaired), {} refused{duplicates}, {} done before; {} says why",
        report.converted,
        report.train,
        report.eval,
        report.repaired,
        report.refused,
        report.unchanged,
        options.index("_report").display()
    ));
    let facts = json!({
        "pieces": report.converted,
        "repaired": report.repaired,
        "refused": report.refused,
        "duplicates": report.duplicates,
        "unchanged": report.unchanged,
        "train": report.train,
        "eval": report.eval,
    });
    Ok(Ended::Done(Outputs::new(files, &facts)))
}
