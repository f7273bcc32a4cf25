//! The command line.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{plan::Selection, recipe};

/// Trains NotaGen: one command runs a whole recipe, from scores to music.
#[derive(Debug, Parser)]
#[command(
    name = "notagen-train",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 the recipe or the command line is wrong, 75 stopped by a signal with all saved."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Results as JSON, one object a line, on standard output.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to run, and how much of it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The recipe, a YAML file (see recipes/).
    pub recipe: Option<PathBuf>,
    /// Set a key: finetune.learning_rate=2e-5, seed=1.
    #[arg(long, value_name = "K=V")]
    pub set: Vec<String>,
    /// The first stage to run.
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// The last stage to run.
    #[arg(long, value_name = "STAGE")]
    pub until: Option<String>,
    /// The one stage to run.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["from", "until"])]
    pub only: Option<String>,
    /// Remove what the selected stages have done, and run them again.
    #[arg(long)]
    pub fresh: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Processes on this machine.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nproc: u32,
}

impl RunArgs {
    pub fn selection(&self) -> Selection {
        Selection { from: self.from.clone(), until: self.until.clone(), only: self.only.clone() }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a recipe (the same without the word `run`).
    Run(RunArgs),
    /// Show the stages resolved; which are done, stale or to do, and why; what they cost.
    Plan(RunArgs),
    /// Check recipes without looking at data.
    Validate {
        /// The recipes.
        #[arg(required = true)]
        recipes: Vec<PathBuf>,
    },
    /// Show how far a run is.
    Status {
        /// The name of the run, or its folder.
        run: PathBuf,
        /// Keep showing it until it ends.
        #[arg(long)]
        follow: bool,
    },
    /// Preprocess standard ABC: interleaved ABC, the form NotaGen trains on, and indexes.
    Preprocess(PreprocessArgs),
    /// Write pieces of music.
    Generate(GenerateArgs),
    /// The log-probability of pieces under a model.
    Logprob {
        /// The weights.
        #[arg(long)]
        weights: PathBuf,
        /// The pieces, in the form NotaGen trains on.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        on: On,
    },
    /// Look into weights files, and convert them.
    Weights {
        #[command(subcommand)]
        command: WeightsCommand,
    },
    /// Show what this machine has: libtorch, CUDA, NCCL, memory, corpora, weights.
    Doctor,
    /// Print the JSON schema of recipes.
    #[command(hide = true)]
    Schema,
}

#[derive(Debug, Args)]
pub struct PreprocessArgs {
    /// Folder of standard ABC files.
    #[arg(long, value_name = "DIR")]
    pub scores: PathBuf,
    /// Folder for interleaved ABC.
    #[arg(long, value_name = "DIR")]
    pub interleaved: PathBuf,
    /// Folder for the form NotaGen trains on; the indexes lie beside it.
    #[arg(long, value_name = "DIR")]
    pub augmented: PathBuf,
    /// The portion of the pieces kept for evaluation.
    #[arg(long, default_value_t = 0.1)]
    pub eval_split: f64,
    /// The seed of the split.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A table of period, composer and instrumentation by piece.
    #[arg(long, value_name = "CSV")]
    pub prompts: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The weights.
    #[arg(long)]
    pub weights: PathBuf,
    /// Folder for original/, interleaved/ and summary.json.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Pieces to write.
    #[arg(long, value_name = "N")]
    pub samples: u64,
    /// Pieces written at a time (as many as the memory holds).
    #[arg(long, value_name = "B")]
    pub batch_size: Option<u64>,
    /// The seed of the drawing.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Draw from the k likeliest characters.
    #[arg(long, default_value_t = 9)]
    pub top_k: u64,
    /// Draw from the likeliest characters that together reach this probability.
    #[arg(long, default_value_t = 0.9)]
    pub top_p: f64,
    /// Above 1 evens the probabilities out, below 1 sharpens them.
    #[arg(long, default_value_t = 1.2)]
    pub temperature: f64,
    /// What to write: "Period_Composer_Instrumentation".
    #[arg(long, conflicts_with = "continue_file")]
    pub prompt: Option<String>,
    /// A file of prompts, one a line, taken in turn.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "continue_file"])]
    pub prompts: Option<PathBuf>,
    /// A piece to go on from, standard or interleaved ABC; one without stream tags gets as long again.
    #[arg(long = "continue", value_name = "FILE")]
    pub continue_file: Option<PathBuf>,
    /// Only every n-th piece, from number i on, i counted from 0: the n shards together are the whole.
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = shard)]
    pub shard: (usize, usize),
    /// Give a piece up after this many seconds.
    #[arg(long)]
    pub max_seconds: Option<f64>,
    /// Give a piece up after this many characters.
    #[arg(long)]
    pub max_characters: Option<u64>,
    /// End a piece after this many patches.
    #[arg(long)]
    pub max_patches: Option<u64>,
    #[command(flatten)]
    pub on: On,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(i, n)| i < n).ok_or_else(|| "shards of 4 are 0/4, 1/4, 2/4 and 3/4".to_owned())
}

/// Where to compute, and in what.
#[derive(Debug, Args)]
pub struct On {
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    pub device: DeviceArg,
    /// The number format of the arithmetic, on a GPU.
    #[arg(long, default_value = "fp32")]
    pub precision: Dtype,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DeviceArg {
    Auto,
    Cpu,
    Cuda,
}

impl From<DeviceArg> for recipe::Device {
    fn from(device: DeviceArg) -> recipe::Device {
        match device {
            DeviceArg::Auto => recipe::Device::Auto,
            DeviceArg::Cpu => recipe::Device::Cpu,
            DeviceArg::Cuda => recipe::Device::Cuda,
        }
    }
}

/// A number format.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Dtype {
    Fp32,
    Bf16,
    Fp16,
}

impl From<Dtype> for recipe::Precision {
    fn from(dtype: Dtype) -> recipe::Precision {
        match dtype {
            Dtype::Fp32 => recipe::Precision::Fp32,
            Dtype::Bf16 => recipe::Precision::Bf16,
            Dtype::Fp16 => recipe::Precision::Fp16,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Show what a weights file holds, without loading it.
    Inspect {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Write the weights of a file as another: .pth or .safetensors, by the name.
    Export {
        /// The file to read.
        file: PathBuf,
        /// The file to write.
        #[arg(long)]
        output: PathBuf,
        /// The number format of the weights (as they are).
        #[arg(long)]
        dtype: Option<Dtype>,
        /// Take optimizer and schedule along (.pth).
        #[arg(long)]
        everything: bool,
    },
}
