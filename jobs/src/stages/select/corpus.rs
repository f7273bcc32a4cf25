//! What is chosen from: the pieces of an index, or a folder of ABC.
use std::fs;
use std::path::{Path, PathBuf};

use notation::index::IndexEntry;
use notation::interleave::uninterleave;
use notation::preprocess::{ConvertedPiece, Keys, convert};
use notation::{Key, augment, rests, text};

use super::job::{SelectJob, beside};
use crate::common::failure::{Failure, Result};
use crate::common::files::save;

/// Where pieces come from.
pub enum Corpus {
    /// An index; its pieces are read in the form that NotaGen trains on.
    Index(notation::corpus::IndexedCorpus),
    /// A folder of interleaved or standard ABC.
    Folder,
}

/// One piece of the corpus.
#[derive(Debug, Clone)]
pub struct CorpusPiece {
    /// Of an index its entry's path, of a folder the file.
    pub path: String,
    /// The original key as an index has it.
    key: String,
}

/// A piece as the networks read it.
pub struct Texts {
    /// As NotaGen trains on it, in its own key.
    pub reduced: String,
    /// As CLaMP 2 reads it.
    pub interleaved: String,
}

impl Corpus {
    /// The pieces in the order of the index, or of their names.
    pub fn open(job: &SelectJob) -> Result<(Corpus, Vec<CorpusPiece>)> {
        if !job.corpus.is_dir() {
            let entries = trainer::read_index(&job.corpus, job.pieces.as_deref())?;
            let corpus = notation::corpus::IndexedCorpus::open(&entries)?;
            let pieces = entries.into_iter().map(|entry| CorpusPiece { path: entry.path, key: entry.key }).collect();
            return Ok((Corpus::Index(corpus), pieces));
        }
        let files = files(&job.corpus, job.pieces.as_deref())?;
        Ok((Corpus::Folder, files.into_iter().map(|path| CorpusPiece { path, key: String::new() }).collect()))
    }

    /// A piece in both forms.
    ///
    /// # Errors
    /// Says what is wrong with the piece, and names its file.
    pub fn texts(&self, piece: &CorpusPiece) -> Result<Texts> {
        let Corpus::Index(corpus) = self else {
            let ConvertedPiece { interleaved, reduced, .. } = converted(piece)?;
            let reduced = reduced.into_iter().next().map(|(_, text)| text).unwrap_or_default();
            return Ok(Texts { reduced, interleaved });
        };
        let entry = entry_of(piece);
        let key = entry.key()?;
        let reduced = corpus.read(&entry, key)?;
        let interleaved = with_rests(&reduced).map_err(|error| of_file(&corpus.file(&entry, key), &error))?;
        Ok(Texts { reduced, interleaved })
    }

    /// The bars of a piece, each of all its voices; in C where that can be had, so that transposed copies are alike.
    pub fn bars(&self, piece: &CorpusPiece) -> Result<Vec<String>> {
        let c = Key::of_mode("C")?;
        let moved = match self {
            Corpus::Index(corpus) => corpus.read(&entry_of(piece), c).ok(),
            Corpus::Folder => augment::reduced(&converted(piece)?.interleaved, c).ok(),
        };
        let text = moved.map_or_else(|| self.texts(piece).map(|texts| texts.reduced), Ok)?;
        let bars = text.lines().filter(|line| line.starts_with("[V:"));
        Ok(bars.map(|bar| bar.split_whitespace().collect()).collect())
    }

    /// The line of the index for a chosen piece. One of a folder is written beside the index first, interleaved.
    pub fn entry(&self, job: &SelectJob, piece: &CorpusPiece) -> Result<IndexEntry> {
        if let Corpus::Index(_) = self {
            return Ok(entry_of(piece));
        }
        let ConvertedPiece { key, interleaved, .. } = converted(piece)?;
        let path = beside(&job.output, "_pieces").join(Path::new(&piece.path).file_stem().unwrap_or_default());
        let path = path.to_string_lossy().into_owned();
        save(Path::new(&format!("{path}.abc")), interleaved.as_bytes())?;
        Ok(IndexEntry { path, key })
    }
}

fn files(folder: &Path, pieces: Option<&str>) -> Result<Vec<String>> {
    let glob = pieces.map(trainer::glob).transpose()?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Failure::io("read", folder, error))? {
        let file = entry.map_err(|error| Failure::io("read", folder, error))?.path();
        let wanted = glob.as_ref().is_none_or(|glob| glob.is_match(file.file_stem().unwrap_or_default()));
        if wanted && file.extension().is_some_and(|end| end == "abc") {
            files.push(file.to_string_lossy().into_owned());
        }
    }
    if files.is_empty() {
        let of = pieces.map_or_else(String::new, |pieces| format!(" that match `{pieces}`"));
        return Err(Failure::failed(format!("{}: no .abc files{of}", folder.display())));
    }
    files.sort();
    Ok(files)
}

fn entry_of(piece: &CorpusPiece) -> IndexEntry {
    IndexEntry { path: piece.path.clone(), key: piece.key.clone() }
}

/// A piece of a folder: standard ABC, interleaved ABC, or interleaved ABC as a network wrote it.
fn converted(piece: &CorpusPiece) -> Result<ConvertedPiece> {
    let path = PathBuf::from(&piece.path);
    let abc = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, error))?;
    let interleaved = abc.lines().any(|line| line.starts_with("[V:") || line.starts_with("[r:"));
    let standard = match interleaved {
        false => Ok(abc),
        true => with_rests(&abc).and_then(|abc| Ok(uninterleave(&text::lines(&abc))?.concat())),
    };
    standard.and_then(|abc| convert(abc.as_bytes(), Keys::Original)).map_err(|error| of_file(&path, &error))
}

/// Interleaved ABC with the bars that were left out put back. A piece of one voice has no `%%score`, and all its bars.
fn with_rests(abc: &str) -> notation::Result<String> {
    let has_score = abc.lines().any(|line| line.starts_with("%%score"));
    if has_score { rests::unreduce_text(abc) } else { Ok(abc.to_owned()) }
}

fn of_file(path: &Path, error: &notation::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}
