//! Converts a folder of scores, MusicXML or standard ABC, to the form NotaGen trains on.
//!
//! ```text
//! scores/<name>.mxl  ─►  <interleaved>/<name>.abc, or one packed corpus
//!                        <augmented>/<Key>/<name>_<Key>.abc, unless pieces are transposed as they are read
//!                        <augmented>.jsonl, <augmented>_train.jsonl, <augmented>_eval.jsonl
//!                        <augmented>_report.jsonl
//! ```
//!
//! This is the original's `data/2_data_preprocess.py`, with three differences. A piece that fails leaves no files behind.
//! The split into training and evaluation depends on the seed and the names alone. And a run continues where another was
//! killed: the report has a line for each piece, and a piece is done if its line has the hash of its input, its prompt and
//! the requested keys.

mod convert;
mod locate;
mod options;
mod prompts;
mod report;
mod scores;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::files::{remove, write};
use crate::index::{IndexEntry, file_name};
use crate::pack::PackWriter;
use crate::{Error, Key, Result};
use convert::{convert_standard, refusal};
use prompts::PromptTable;
use scores::scores;

pub use convert::{ConvertedPiece, convert, standard};
pub use locate::locate;
pub use options::{Keys, PreprocessOptions};
pub use report::PieceReport;
pub use scores::find;

/// Warnings of a piece that the report lists; the others are counted.
const MOST_WARNINGS: usize = 10;

/// The version of the conversion. It changes when the same input gives other output; then older reports are ignored.
const VERSION: u32 = 1;

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Before the first piece.
    Started {
        /// Pieces found.
        pieces: usize,
    },
    /// After each piece, in no particular order.
    Piece {
        /// Pieces done, this one included.
        done: usize,
        /// Pieces found.
        pieces: usize,
        /// The result.
        piece: &'a PieceReport,
        /// Whether it was done already.
        unchanged: bool,
    },
}

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreprocessSummary {
    /// Every piece, sorted by name.
    pub pieces: Vec<PieceReport>,
    /// Pieces in the index.
    pub converted: usize,
    /// How many of these have warnings: something odd was repaired or left out.
    pub repaired: usize,
    /// Pieces refused.
    pub refused: usize,
    /// Pieces with the same text as another one. They are in no index.
    pub duplicates: usize,
    /// Pieces, converted or refused, that were done before.
    pub unchanged: usize,
    /// Pieces in the training index.
    pub train: usize,
    /// Pieces in the evaluation index.
    pub eval: usize,
}

/// Preprocesses a folder, on all cores. Pieces that fail are refused, and the report says why.
///
/// # Errors
/// Only for the run as a whole: wrong options, folders that cannot be read or written, no scores, a requested stop.
pub fn run(options: &PreprocessOptions, progress: &(dyn Fn(Progress) + Sync)) -> Result<PreprocessSummary> {
    if !(0.0..=1.0).contains(&options.eval_split) {
        return Err(Error::EvalSplit { value: options.eval_split });
    }
    let listed = options.listed()?;
    if listed.to_str().is_none() {
        return Err(Error::Name { path: listed.to_owned() });
    }
    let scores = scores(&options.scores)?;
    let prompts = options.prompts.as_deref().map(PromptTable::read).transpose()?.unwrap_or_default();
    prompts.check(|name| scores.contains_key(name))?;
    make_folders(options)?;
    let pack = options.pack.as_deref().map(PackWriter::open).transpose()?;

    let report = options.index("_report");
    let known = report::read(&report);
    // Rewritten, since a killed run may have left half a line at its end.
    report::write(&report, known.values())?;
    let journal = OpenOptions::new().append(true).open(&report).map_err(Error::io(&report))?;
    let journal = Mutex::new(journal);
    let job = PreprocessJob { options, prompts, pack };

    progress(Progress::Started { pieces: scores.len() });
    let done = AtomicUsize::new(0);
    let work = || {
        scores
            .par_iter()
            .map(|(name, path)| {
                if options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return Err(Error::Stopped);
                }
                let (piece, unchanged) = job.piece(name, path, known.get(name))?;
                if !unchanged {
                    report::append(&journal, &piece).map_err(Error::io(&report))?;
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                progress(Progress::Piece { done, pieces: scores.len(), piece: &piece, unchanged });
                Ok((piece, unchanged))
            })
            .collect::<Result<Vec<_>>>()
    };
    let pieces = match options.threads {
        None => work(),
        Some(threads) => rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Threads(error.to_string()))?
            .install(work),
    }?;

    for gone in known.keys().filter(|name| !scores.contains_key(*name)) {
        remove(&options.files(gone, &Key::ALL))?;
    }
    let unchanged = pieces.iter().filter(|(_, unchanged)| *unchanged).count();
    let mut pieces: Vec<PieceReport> = pieces.into_iter().map(|(piece, _)| piece).collect();
    if let Some(pack) = job.pack {
        let converted = pieces.iter().filter(|piece| piece.key.is_some());
        let mut duplicates = pack.finish(&converted.map(|piece| piece.name.as_str()).collect::<Vec<_>>())?;
        for piece in &mut pieces {
            piece.duplicate_of = duplicates.remove(&piece.name);
        }
    }
    let (train, eval) = write_indexes(options, listed, &pieces)?;
    report::write(&report, pieces.iter())?;
    let count = |of: fn(&PieceReport) -> bool| pieces.iter().filter(|piece| of(piece)).count();
    Ok(PreprocessSummary {
        converted: train + eval,
        repaired: count(|piece| piece.is_listed() && !piece.warnings.is_empty()),
        refused: count(|piece| piece.refused.is_some()),
        duplicates: count(|piece| piece.duplicate_of.is_some()),
        unchanged,
        train,
        eval,
        pieces,
    })
}

fn make_folders(options: &PreprocessOptions) -> Result<()> {
    let make = |folder: &Path| fs::create_dir_all(folder).map_err(Error::io(folder));
    options.interleaved.as_deref().map_or(Ok(()), make)?;
    if options.keys == Keys::None {
        // The indexes are beside it.
        return options.augmented.parent().map_or(Ok(()), make);
    }
    Key::ALL.iter().try_for_each(|key| make(&options.augmented.join(key.name())))
}

/// Converts the pieces of a run.
struct PreprocessJob<'a> {
    options: &'a PreprocessOptions,
    prompts: PromptTable,
    pack: Option<PackWriter>,
}

impl PreprocessJob<'_> {
    /// Converts a piece and writes its files. If that was done before, it only returns the report's line, and `true`.
    fn piece(&self, name: &str, path: &Path, known: Option<&PieceReport>) -> Result<(PieceReport, bool)> {
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let prompt = self.prompts.pieces.get(name);
        let mut piece = PieceReport {
            name: name.to_owned(),
            keys: self.options.keys,
            key: None,
            voices: None,
            bars: None,
            prompt: prompt.map(|prompt| prompt.text.clone()),
            duplicate_of: None,
            refused: None,
            warnings: Vec::new(),
            sha256: Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            version: VERSION,
        };
        if let Some(known) = known.filter(|known| self.is_done(&piece, known)) {
            return Ok((PieceReport { keys: piece.keys, ..known.clone() }, true));
        }
        if known.is_some() {
            remove(&self.options.files(name, &Key::ALL))?;
        }
        let converted = standard(&bytes).and_then(|(abc, warnings)| {
            piece.warnings = warnings.iter().take(MOST_WARNINGS).map(ToString::to_string).collect();
            if warnings.len() > MOST_WARNINGS {
                piece.warnings.push(format!("and {} more", warnings.len() - MOST_WARNINGS));
            }
            convert_standard(&abc, self.options.keys, prompt)
        });
        match converted {
            Ok(converted) => {
                self.write(name, &converted)?;
                piece.voices = Some(converted.voices);
                piece.bars = Some(converted.bars);
                piece.key = Some(converted.key);
            }
            Err(error) => piece.refused = Some(refusal(path, &bytes, &error)),
        }
        Ok((piece, false))
    }

    /// Whether an earlier run had the same result for a piece, and its files are all there.
    fn is_done(&self, piece: &PieceReport, known: &PieceReport) -> bool {
        if known.sha256 != piece.sha256 || known.version != piece.version || known.prompt != piece.prompt {
            return false;
        }
        // With `all` and `none`, a piece that cannot be transposed to all fifteen keys is refused; with `original` it is not.
        let all = |keys: Keys| keys != Keys::Original;
        let keys = all(known.keys) == all(piece.keys) || (all(known.keys) && known.key.is_some());
        keys && match &known.key {
            None => true,
            Some(key) => Key::of_mode(key).is_ok_and(|key| {
                let files = self.options.files(&piece.name, &self.options.keys.of(key));
                files.iter().all(|file| file.is_file()) && self.pack.as_ref().is_none_or(|pack| pack.has(&piece.name))
            }),
        }
    }

    fn write(&self, name: &str, converted: &ConvertedPiece) -> Result<()> {
        if let Some(folder) = &self.options.interleaved {
            write(&folder.join(format!("{name}.abc")), converted.interleaved.as_bytes())?;
        }
        if let Some(pack) = &self.pack {
            pack.add(name, &converted.interleaved)?;
        }
        for (key, text) in &converted.reduced {
            write(&self.options.augmented.join(key.name()).join(file_name(name, *key)), text.as_bytes())?;
        }
        Ok(())
    }
}

/// Writes the three index files; returns how many pieces are for training and for evaluation.
fn write_indexes(options: &PreprocessOptions, listed: &Path, pieces: &[PieceReport]) -> Result<(usize, usize)> {
    // Sorted by a hash of seed and name: the order is the same on every machine, and one piece more or less moves few
    // others between training and evaluation.
    let mut order: Vec<([u8; 32], IndexEntry)> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.is_listed()) {
        if let Some(key) = &piece.key {
            let path = listed.join(&piece.name);
            let path = path.to_str().ok_or_else(|| Error::Name { path: path.clone() })?.to_owned();
            let place = Sha256::new().chain_update(options.seed.to_le_bytes()).chain_update(&piece.name);
            order.push((place.finalize().into(), IndexEntry { path, key: key.clone() }));
        }
    }
    order.sort_by_key(|(place, _)| *place);
    let lines: Vec<String> = order.iter().map(|(_, entry)| entry.line()).collect();
    let (eval, train) = lines.split_at((options.eval_split * lines.len() as f64) as usize);
    write(&options.index(""), lines.concat().as_bytes())?;
    write(&options.index("_eval"), eval.concat().as_bytes())?;
    write(&options.index("_train"), train.concat().as_bytes())?;
    Ok((train.len(), eval.len()))
}
