//! Standard ABC in; interleaved ABC, the form NotaGen trains on, and indexes out.
use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicBool};

use notation::preprocess::{self, Options, Progress};
use serde_json::{Map, json};

use crate::{
    failure::{Failure, Result},
    progress::Reporter,
    recipe::{Keys, Preprocess},
    stages::{Context, Ended},
    state::Outputs,
};

pub fn run(stage: &Preprocess, context: &mut Context) -> Result<Ended> {
    if let Some(prompts) = &stage.prompts {
        return Err(Failure::failed(format!("prompts ({}) are not available in this version", prompts.display())));
    }
    let options = Options {
        eval_split: stage.eval_split.get(),
        seed: stage.seed.unwrap_or(0),
        keys: stage.keys.unwrap_or(Keys::All).into(),
        ..Options::new(&stage.scores, &stage.interleaved, &stage.augmented)
    };
    convert(options, context.stop, context.reporter)
}

/// Converts a folder and says what became of it.
pub fn convert(mut options: Options, stop: &Arc<AtomicBool>, reporter: &mut Reporter) -> Result<Ended> {
    options.stop = Some(Arc::clone(stop));
    let files = vec![
        options.index(""),
        options.index("_train"),
        options.index("_eval"),
        options.interleaved.clone(),
        options.augmented.clone(),
    ];
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
    reporter.say(format!(
        "{} pieces ({} for training, {} for evaluation), {} refused, {} done before",
        report.converted, report.train, report.eval, report.refused, report.unchanged
    ));
    let mut facts = Map::new();
    facts.insert("pieces".to_owned(), json!(report.converted));
    facts.insert("refused".to_owned(), json!(report.refused));
    facts.insert("unchanged".to_owned(), json!(report.unchanged));
    facts.insert("train".to_owned(), json!(report.train));
    facts.insert("eval".to_owned(), json!(report.eval));
    Ok(Ended::Done(Outputs { files, facts, ..Outputs::default() }))
}
