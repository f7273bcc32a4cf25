//! What to choose from a corpus, and where to put it.
use std::path::{Path, PathBuf};

use tch::Device;
use trainer::Dtype;

use crate::recipe::By;

/// What to choose from, how, and where to put it.
pub struct SelectJob {
    pub corpus: PathBuf,
    /// Glob on the names of the pieces.
    pub pieces: Option<String>,
    pub by: By,
    /// The weights that say how likely a piece is.
    pub weights: Option<PathBuf>,
    /// The weights that say how like the reference a piece is, and the reference's features.
    pub judge: Option<(PathBuf, PathBuf)>,
    pub count: Option<usize>,
    pub portion: Option<f64>,
    pub threshold: Option<f64>,
    /// The portion of bars in common with a better piece that makes a piece its duplicate.
    pub duplicates: Option<f64>,
    pub output: PathBuf,
    /// Folder for the scores on the way.
    pub scores: PathBuf,
    /// (i, n): only every n-th part of the corpus is scored, and nothing is chosen.
    pub shard: (usize, usize),
    pub precision: Dtype,
    pub device: Device,
}

/// `<output without its end><end>`.
pub fn beside(output: &Path, end: &str) -> PathBuf {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!("{stem}{end}"))
}
