//! A folder of scores, MusicXML or standard ABC, to what NotaGen trains on.
//!
//! ```text
//! scores/<name>.mxl  ─►  <interleaved>/<name>.abc, or one packed corpus
//!                        <augmented>/<Key>/<name>_<Key>.abc, unless pieces are to be moved as they are read
//!                        <augmented>.jsonl, <augmented>_train.jsonl, <augmented>_eval.jsonl
//!                        <augmented>_report.jsonl
//! ```
//!
//! As the original's `data/2_data_preprocess.py`, with these differences: a piece that fails leaves no
//! files behind; the split into training and evaluation depends on the seed and the names alone; and a
//! run goes on where another was killed. The report, a line a piece, is what tells it: a piece is done
//! when its line has the hash of its input, its prompt and the keys that are asked for.

mod place;
mod report;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{Flush, write_atomically};
use crate::index::{Entry, file_name};
use crate::musicxml::{self, Warning};
use crate::pack;
use crate::prompts::{Prompt, Prompts};
use crate::transpose::Movable;
use crate::{Error, Key, Result, alignment, augment, bars, clean, interleave, text};

pub use place::place;
pub use report::Piece;

/// What a score's file name ends in.
const ENDS: [&str; 4] = ["abc", "mxl", "musicxml", "xml"];

/// More warnings of one piece than these are counted in the report, not listed.
const MOST_WARNINGS: usize = 10;

/// Changes when the same input would give other output; older reports are not believed then.
const VERSION: u32 = 1;

/// The keys that pieces are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Each piece's own: enough for key_augmentation none.
    #[default]
    Original,
    /// All fifteen.
    All,
    /// None: training moves the packed or interleaved pieces as it reads them.
    None,
}

impl Keys {
    fn of(self, original: Key) -> Vec<Key> {
        match self {
            Keys::Original => vec![original],
            Keys::All => Key::ALL.to_vec(),
            Keys::None => Vec::new(),
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
    pub interleaved: Option<PathBuf>,
    /// File for interleaved ABC, all pieces in it. Those with the text of another one are stored once, and are in no
    /// index.
    pub pack: Option<PathBuf>,
    /// Folder for reduced ABC by key; the index files are named after it.
    pub augmented: PathBuf,
    /// The share of pieces for evaluation, 0 to 1; rounded down to whole pieces.
    pub eval_split: f64,
    /// Of the split and the order of the index files.
    pub seed: u64,
    /// Which keys to write. The index names the augmented pieces, or with [`Keys::None`] the packed ones, or the
    /// interleaved ones.
    pub keys: Keys,
    /// A table of the pieces' prompts, see [`crate::prompts`].
    pub prompts: Option<PathBuf>,
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
            interleaved: Some(interleaved.into()),
            pack: None,
            augmented: augmented.into(),
            eval_split: 0.1,
            seed: 0,
            keys: Keys::default(),
            prompts: None,
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

    /// The folder, or the packed corpus, whose pieces the index names.
    fn listed(&self) -> Result<&Path> {
        match (self.keys, &self.pack, &self.interleaved) {
            (_, None, None) => Err(Error::NoOutput),
            (Keys::None, Some(pack), _) => Ok(pack),
            (Keys::None, None, Some(interleaved)) => Ok(interleaved),
            _ => Ok(&self.augmented),
        }
    }

    /// Where a piece's files go.
    fn files(&self, name: &str, keys: &[Key]) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            self.interleaved.iter().map(|folder| folder.join(format!("{name}.abc"))).collect();
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

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every piece, by name.
    pub pieces: Vec<Piece>,
    /// Pieces in the index.
    pub converted: usize,
    /// Of these, pieces about which something was odd: repaired or left out, with a warning.
    pub repaired: usize,
    /// Pieces refused.
    pub refused: usize,
    /// Pieces with the text of another one, in no index.
    pub duplicates: usize,
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
    if musicxml::looks_like(bytes) {
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
    convert_standard(&standard(bytes)?.0, keys, None)
}

/// Converts one piece of standard ABC.
fn convert_standard(abc: &str, keys: Keys, prompt: Option<&Prompt>) -> Result<Converted> {
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
    let lines: Vec<String> =
        prompt.iter().flat_map(|prompt| prompt.lines()).chain(clean::annotations(&lines)).collect();
    let key = match bars::header(&bars::voices(&lines)?.header)?.key {
        key if key == "none" => "C".to_owned(),
        key => key,
    };
    let interleaved = interleave::interleave(&lines)?.concat();
    let own = Key::of_mode(&key)?;
    let movable = Movable::new(&lines)?;
    if keys == Keys::None {
        check_moves(&movable, &interleaved)?;
    }
    let reduced = keys.of(own).into_iter().map(|key| Ok((key, movable.reduced(key)?)));
    Ok(Converted { key, interleaved, reduced: reduced.collect::<Result<_>>()?, voices, bars })
}

/// What cannot be moved as it is read, to the same text in every key, is refused here, and not in the middle of a
/// training: quotes that are open across bars, for one, say more in the score than interleaved.
fn check_moves(movable: &Movable, interleaved: &str) -> Result<()> {
    let loaded = augment::movable(interleaved)?;
    for key in Key::ALL {
        if movable.reduced(key)? != loaded.reduced(key).unwrap_or_default() {
            return Err(Error::Interleaved { key: key.name().to_owned() });
        }
    }
    Ok(())
}

/// Preprocesses a folder, on all cores. Pieces that fail are refused and named in the report.
///
/// # Errors
/// Only for what concerns the whole run: options, folders, no scores at all, a stop asked for.
pub fn run(options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<Report> {
    if !(0.0..=1.0).contains(&options.eval_split) {
        return Err(Error::EvalSplit { value: options.eval_split });
    }
    let listed = options.listed()?;
    if listed.to_str().is_none() {
        return Err(Error::Name { path: listed.to_owned() });
    }
    let scores = scores(&options.scores)?;
    let prompts = options.prompts.as_deref().map(Prompts::read).transpose()?.unwrap_or_default();
    prompts.check(|name| scores.contains_key(name))?;
    make_folders(options)?;
    let pack = options.pack.as_deref().map(pack::Writer::open).transpose()?;

    let report = options.index("_report");
    let known = report::known(&report);
    // Rewritten, so that a line cut short by a kill does not spoil the next one.
    report::write(&report, known.values())?;
    let journal = OpenOptions::new().append(true).open(&report).map_err(Error::io(&report))?;
    let journal = Mutex::new(journal);
    let job = Job { options, prompts, pack };

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
    let mut pieces: Vec<Piece> = pieces.into_iter().map(|(piece, _)| piece).collect();
    if let Some(pack) = job.pack {
        let converted = pieces.iter().filter(|piece| piece.key.is_some());
        let mut duplicates = pack.finish(&converted.map(|piece| piece.name.as_str()).collect::<Vec<_>>())?;
        for piece in &mut pieces {
            piece.duplicate_of = duplicates.remove(&piece.name);
        }
    }
    let (train, eval) = write_indexes(options, listed, &pieces)?;
    report::write(&report, pieces.iter())?;
    let count = |of: fn(&Piece) -> bool| pieces.iter().filter(|piece| of(piece)).count();
    Ok(Report {
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

fn make_folders(options: &Options) -> Result<()> {
    let make = |folder: &Path| fs::create_dir_all(folder).map_err(Error::io(folder));
    options.interleaved.as_deref().map_or(Ok(()), make)?;
    if options.keys == Keys::None {
        // The indexes lie beside it.
        return options.augmented.parent().map_or(Ok(()), make);
    }
    Key::ALL.iter().try_for_each(|key| make(&options.augmented.join(key.name())))
}

/// A score's file name without its end.
pub(crate) fn score_name(file: &str) -> &str {
    file.rsplit_once('.').filter(|(_, end)| ENDS.contains(end)).map_or(file, |(name, _)| name)
}

/// The names of the pieces with their files, sorted.
fn scores(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut scores: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let file = path.file_name().unwrap_or_default();
        let file = file.to_str().ok_or_else(|| Error::Name { path: path.clone() })?;
        let name = score_name(file);
        if name != file
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

/// Why a piece is refused: its file, the place where one is known, and what is wrong.
fn refusal(path: &Path, bytes: &[u8], error: &Error) -> String {
    let place = match standard(bytes) {
        Ok((Cow::Borrowed(abc), _)) => place(abc, error),
        _ => None,
    };
    match place {
        Some((line, column)) => format!("{}:{line}:{column}: {error}", path.display()),
        None => format!("{}: {error}", path.display()),
    }
}

/// What every piece is converted with.
struct Job<'a> {
    options: &'a Options,
    prompts: Prompts,
    pack: Option<pack::Writer>,
}

impl Job<'_> {
    /// Converts a piece and writes its files, unless that was done; the flag says so.
    fn piece(&self, name: &str, path: &Path, known: Option<&Piece>) -> Result<(Piece, bool)> {
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let prompt = self.prompts.pieces.get(name);
        let mut piece = Piece {
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
            return Ok((Piece { keys: piece.keys, ..known.clone() }, true));
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

    /// Whether what an earlier run made of a piece is what this one would make, and is all there.
    fn is_done(&self, piece: &Piece, known: &Piece) -> bool {
        if known.sha256 != piece.sha256 || known.version != piece.version || known.prompt != piece.prompt {
            return false;
        }
        // What can be moved to all fifteen keys can be moved to any; what cannot is refused where all are asked for.
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

    fn write(&self, name: &str, converted: &Converted) -> Result<()> {
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

/// Writes the three index files; says how many pieces are for training and for evaluation.
fn write_indexes(options: &Options, listed: &Path, pieces: &[Piece]) -> Result<(usize, usize)> {
    // Shuffled by a hash of seed and name: the same on every machine, and a piece more or less moves few
    // others between training and evaluation.
    let mut order: Vec<([u8; 32], Entry)> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.is_listed()) {
        if let Some(key) = &piece.key {
            let path = listed.join(&piece.name);
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
    write_atomically(path, Flush::Later, |file| file.write_all(bytes)).map_err(Error::io(path))
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
