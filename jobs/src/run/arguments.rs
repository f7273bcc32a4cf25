//! What a recipe is run with.
use std::path::PathBuf;

use clap::Args;

use crate::plan::Selection;

/// What to run, and how much of it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The recipe, a YAML file (see recipes/).
    pub recipe: Option<PathBuf>,
    /// Set a key: finetune.learning_rate=2e-5, seed=1.
    #[arg(long, value_name = "K=V")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Remove what the selected stages have done, and run them again.
    #[arg(long)]
    pub fresh: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Only the pieces of share i of n, i counted from 0, of the one stage (generate, features or select) that --only
    /// names. It is done once all shares are there and the stage is run without this.
    #[arg(long, value_name = "I/N", value_parser = shard, requires = "only")]
    pub shard: Option<(usize, usize)>,
    /// Record a Chrome trace of N steps of each training stage, and of N rounds of each that writes music: profile.json in
    /// the stage's folder.
    #[arg(long, value_name = "N")]
    pub profile: Option<u64>,
    /// Processes on this machine (one a GPU; on the CPU one).
    #[arg(long, value_name = "N")]
    pub nproc: Option<u32>,
    /// With several processes: start them again from the last checkpoint so often, when one fails.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_restarts: u32,
}

/// A share, `I/N`, counted from 0.
///
/// # Errors
/// It is none.
pub fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(i, n)| i < n).ok_or_else(|| "shards of 4 are 0/4, 1/4, 2/4 and 3/4".to_owned())
}
