//! A folder of scores, MusicXML or standard ABC, to what NotaGen trains on.
//!
//! ```text
//! scores/<name>.mxl  ─►  <interleaved>/<name>.abc
//!                        <augmented>/<Key>/<name>_<Key>.abc
//!                        <augmented>.jsonl, <augmented>_train.jsonl, <augmented>_eval.jsonl
//!                        <augmented>_report.jsonl
//! ```
//!
//! As the original's `data/2_data_preprocess.py`, with these differences: a piece that fails leaves no
//! files behind; the split into training and evaluation depends on the seed and the names alone; and a
//! run goes on where another was killed. The report, a line a piece, is what tells it: a piece is done
//! when its line has the hash of its input.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::index::{Entry, file_name};
use crate::musicxml::{self, Warning};
use crate::{Error, Key, Result, alignment, bars, clean, interleave, rests, text, transpose};

/// What a score's file name ends in.
const ENDS: [&str; 4] = ["abc", "mxl", "musicxml", "xml"];

/// More warnings of one piece than these are counted in the report, not listed.
const MOST_WARNINGS: usize = 10;

/// Changes when the same input would give other output; older reports are not believed then.
const VERSION: u32 = 1;

/// Which keys to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Each piece's own.
    #[default]
    Original,
    /// All fifteen.
    All,
}

impl Keys {
    fn of(self, original: Key) -> Vec<Key> {
        match self {
            Keys::Original => vec![original],
            Keys::All => Key::ALL.to_vec(),
        }
    }
}

/// What to preprocess, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of scores: `<name>.abc` (standard ABC), `.mxl`, `.musicxml` or `.xml`; its subfolders and other
    /// files are left alone.
    pub scores: PathBuf,
    /// Folder for interleaved ABC.
    pub interleaved: PathBuf,
    /// Folder for reduced ABC by key; the index files are named after it.
    pub augmented: PathBuf,
    /// The share of pieces for evaluation, 0 to 1; rounded down to whole pieces.
    pub eval_split: f64,
    /// Of the split and the order of the index files.
    pub seed: u64,
    /// Which keys to write.
    pub keys: Keys,
    /// Worker threads; all cores if `None`.
    pub threads: Option<usize>,
    /// Set to stop between two pieces, with [`Error::Stopped`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl Options {
    /// The original's: a tenth for evaluation; seed 0; the original key alone.
    pub fn new(scores: impl Into<PathBuf>, interleaved: impl Into<PathBuf>, augmented: impl Into<PathBuf>) -> Options {
        Options {
            scores: scores.into(),
            interleaved: interleaved.into(),
            augmented: augmented.into(),
            eval_split: 0.1,
            seed: 0,
            keys: Keys::default(),
            threads: None,
            stop: None,
        }
    }

    /// An index file beside the folder of augmented pieces: `""`, `"_train"`, `"_eval"` or `"_report"`.
    pub fn index(&self, suffix: &str) -> PathBuf {
        // Components, so that a slash at the end does not make a hidden file in the folder.
        let mut path = self.augmented.components().as_path().as_os_str().to_owned();
        path.push(suffix);
        path.push(".jsonl");
        path.into()
    }

    /// Where a piece's files go.
    fn files(&self, name: &str, keys: &[Key]) -> Vec<PathBuf> {
        let mut files = vec![self.interleaved.join(format!("{name}.abc"))];
        files.extend(keys.iter().map(|key| self.augmented.join(key.name()).join(file_name(name, *key))));
        files
    }
}

/// How far a run is.
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
        /// What became of it.
        piece: &'a Piece,
        /// It was done already.
        unchanged: bool,
    },
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The file's name without its end.
    pub name: String,
    /// The original key as the header has it; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Voices; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voices: Option<usize>,
    /// Bars; absent if the piece was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bars: Option<usize>,
    /// Why it was refused: the file and what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What was odd about it and did not keep it from being converted; of many the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Of the input.
    pub sha256: String,
    /// Of this crate's conversion.
    pub version: u32,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every piece, by name.
    pub pieces: Vec<Piece>,
    /// Pieces in the index.
    pub converted: usize,
    /// Pieces refused.
    pub refused: usize,
    /// Pieces, converted or refused, that were done before.
    pub unchanged: usize,
    /// Pieces in the training index.
    pub train: usize,
    /// Pieces in the evaluation index.
    pub eval: usize,
}

/// A piece converted, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The key as the header has it; `C` for `none`.
    pub key: String,
    /// Interleaved ABC.
    pub interleaved: String,
    /// Reduced ABC in each key asked for.
    pub reduced: Vec<(Key, String)>,
    /// Voices.
    pub voices: usize,
    /// Bars.
    pub bars: usize,
}

/// A score's bytes as standard ABC: MusicXML, plain or compressed, is converted, with warnings. Which of the
/// two it is, its first bytes say.
///
/// # Errors
/// [`Error::MusicXml`] and [`Error::Encoding`].
pub fn standard(bytes: &[u8]) -> Result<(Cow<'_, str>, Vec<Warning>)> {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let utf16 = [b"\xff\xfe".as_slice(), b"\xfe\xff", b"\0<"].iter().any(|start| bytes.starts_with(start));
    if utf16 || start.starts_with(b"<") || start.starts_with(b"PK\x03\x04") {
        let converted = musicxml::to_abc(bytes, "", &musicxml::Options::default())?;
        return Ok((Cow::Owned(converted.abc), converted.warnings));
    }
    Ok((Cow::Borrowed(text::decode(bytes)?), Vec::new()))
}

/// Where the score of a name is in a folder.
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    ENDS.iter().map(|end| folder.join(format!("{name}.{end}"))).find(|path| path.is_file())
}

/// Converts one piece, MusicXML or standard ABC.
///
/// # Errors
/// Says what about the piece is wrong, without its file.
pub fn convert(bytes: &[u8], keys: Keys) -> Result<Converted> {
    convert_standard(&standard(bytes)?.0, keys)
}

/// Converts one piece of standard ABC.
fn convert_standard(abc: &str, keys: Keys) -> Result<Converted> {
    let lines = clean::fields(&text::lines(abc))?;
    let found = bars::bars(&lines)?;
    let aligned = alignment::check_bars(&found)?;
    let (voices, bars) = (found.voices.len(), found.voices[0].bars.len());
    if !aligned.bar_numbers {
        let other = found.voices.iter().find(|voice| voice.bars.len() != bars);
        return Err(Error::UnequalBars {
            voice: other.map(|voice| voice.symbol.clone()).unwrap_or_default(),
            bars: other.map_or(0, |voice| voice.bars.len()),
            expected: bars,
        });
    }
    let lines = clean::annotations(&lines);
    let key = match bars::header(&bars::voices(&lines)?.header)?.key {
        key if key == "none" => "C".to_owned(),
        key => key,
    };
    let interleaved = interleave::interleave(&lines)?.concat();
    let keys = keys.of(Key::of_mode(&key)?);
    let reduced = keys.into_iter().map(|key| Ok((key, rests::reduce(&transpose::transpose(&lines, key)?)?.concat())));
    Ok(Converted { key, interleaved, reduced: reduced.collect::<Result<_>>()?, voices, bars })
}

/// Preprocesses a folder, on all cores. Pieces that fail are refused and named in the report.
///
/// # Errors
/// Only for what concerns the whole run: options, folders, no scores at all, a stop asked for.
pub fn run(options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<Report> {
    if !(0.0..=1.0).contains(&options.eval_split) {
        return Err(Error::EvalSplit { value: options.eval_split });
    }
    let scores = scores(&options.scores)?;
    for folder in [&options.interleaved, &options.augmented] {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    if options.augmented.to_str().is_none() {
        return Err(Error::Name { path: options.augmented.clone() });
    }
    for key in Key::ALL {
        let folder = options.augmented.join(key.name());
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    }

    let report = options.index("_report");
    let known = known(&report);
    // Rewritten, so that a line cut short by a kill does not spoil the next one.
    write_report(&report, known.values())?;
    let journal = OpenOptions::new().append(true).open(&report).map_err(Error::io(&report))?;
    let journal = Mutex::new(journal);

    progress(Progress::Started { pieces: scores.len() });
    let done = AtomicUsize::new(0);
    let work = || {
        scores
            .par_iter()
            .map(|(name, path)| {
                if options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return Err(Error::Stopped);
                }
                let (piece, unchanged) = piece(options, name, path, known.get(name))?;
                if !unchanged {
                    append(&journal, &piece).map_err(Error::io(&report))?;
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
    let pieces: Vec<Piece> = pieces.into_iter().map(|(piece, _)| piece).collect();
    let (train, eval) = write_indexes(options, &pieces)?;
    write_report(&report, pieces.iter())?;
    let converted = train + eval;
    Ok(Report { converted, refused: pieces.len() - converted, unchanged, train, eval, pieces })
}

/// The names of the pieces with their files, sorted.
fn scores(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut scores: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let file = path.file_name().unwrap_or_default();
        let file = file.to_str().ok_or_else(|| Error::Name { path: path.clone() })?;
        if let Some((name, end)) = file.rsplit_once('.')
            && ENDS.contains(&end)
            && !name.is_empty()
            && !name.starts_with('.')
            && path.is_file()
            && let Some(other) = scores.insert(name.to_owned(), path.clone())
        {
            let (path, other) = if other < path { (other, path) } else { (path, other) };
            return Err(Error::SameName { path, other });
        }
    }
    if scores.is_empty() {
        return Err(Error::NoScores { path: folder.to_owned() });
    }
    Ok(scores)
}

/// Converts a piece and writes its files, unless that was done; the flag says so.
fn piece(options: &Options, name: &str, path: &Path, known: Option<&Piece>) -> Result<(Piece, bool)> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(known) = known.filter(|known| known.sha256 == sha256 && known.version == VERSION) {
        let complete = match &known.key {
            None => true,
            Some(key) => Key::of_mode(key)
                .is_ok_and(|key| options.files(name, &options.keys.of(key)).iter().all(|file| file.is_file())),
        };
        if complete {
            return Ok((known.clone(), true));
        }
    }
    if known.is_some() {
        remove(&options.files(name, &Key::ALL))?;
    }
    let mut piece = Piece {
        name: name.to_owned(),
        key: None,
        voices: None,
        bars: None,
        refused: None,
        warnings: Vec::new(),
        sha256,
        version: VERSION,
    };
    let converted = standard(&bytes).and_then(|(abc, warnings)| {
        piece.warnings = warnings.iter().take(MOST_WARNINGS).map(ToString::to_string).collect();
        if warnings.len() > MOST_WARNINGS {
            piece.warnings.push(format!("and {} more", warnings.len() - MOST_WARNINGS));
        }
        convert_standard(&abc, options.keys)
    });
    match converted {
        Ok(converted) => {
            let keys: Vec<Key> = converted.reduced.iter().map(|(key, _)| *key).collect();
            let texts = std::iter::once(&converted.interleaved).chain(converted.reduced.iter().map(|(_, text)| text));
            for (file, text) in options.files(name, &keys).iter().zip(texts) {
                write(file, text.as_bytes())?;
            }
            piece.voices = Some(converted.voices);
            piece.bars = Some(converted.bars);
            piece.key = Some(converted.key);
        }
        Err(error) => piece.refused = Some(format!("{}: {error}", path.display())),
    }
    Ok((piece, false))
}

/// The report of an earlier run, as far as it can be read.
fn known(report: &Path) -> HashMap<String, Piece> {
    let text = fs::read_to_string(report).unwrap_or_default();
    let pieces = text.lines().filter_map(|line| serde_json::from_str::<Piece>(line).ok());
    pieces.map(|piece| (piece.name.clone(), piece)).collect()
}

fn append(journal: &Mutex<File>, piece: &Piece) -> std::io::Result<()> {
    let mut line = serde_json::to_string(piece)?;
    line.push('\n');
    let mut journal = journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    journal.write_all(line.as_bytes())
}

fn write_report<'a>(path: &Path, pieces: impl Iterator<Item = &'a Piece>) -> Result<()> {
    let mut pieces: Vec<&Piece> = pieces.collect();
    pieces.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::new();
    for piece in pieces {
        text.push_str(&serde_json::to_string(piece).map_err(|error| Error::io(path)(error.into()))?);
        text.push('\n');
    }
    write(path, text.as_bytes())
}

/// Writes the three index files; says how many pieces are for training and for evaluation.
fn write_indexes(options: &Options, pieces: &[Piece]) -> Result<(usize, usize)> {
    // Shuffled by a hash of seed and name: the same on every machine, and a piece more or less moves few
    // others between training and evaluation.
    let mut order: Vec<([u8; 32], Entry)> = Vec::new();
    for piece in pieces {
        if let Some(key) = &piece.key {
            let path = options.augmented.join(&piece.name);
            let path = path.to_str().ok_or_else(|| Error::Name { path: path.clone() })?.to_owned();
            let place = Sha256::new().chain_update(options.seed.to_le_bytes()).chain_update(&piece.name);
            order.push((place.finalize().into(), Entry { path, key: key.clone() }));
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

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(Error::io(path))
}

fn remove(files: &[PathBuf]) -> Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(file)(error)),
            _ => {}
        }
    }
    Ok(())
}
