//! The command line.
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use notation::preprocess::Keys;
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};
use trainer::Dtype;

use crate::cluster::SubmitArgs;
use crate::recipe::Device;
use crate::run::{RunArgs, shard};

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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a recipe (the same without the word `run`).
    Run(RunArgs),
    /// Show the stages resolved; which are done, stale or to do, and why; what they cost, also on many GPUs.
    Plan(PlanArgs),
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
    /// Write the report of a run, report.html in its folder, as every run does at its end.
    Report {
        /// The name of the run, or its folder.
        run: PathBuf,
    },
    /// Run a recipe on a cluster: a job a stage, one after the other; what is done or submitted already is left out.
    Submit(SubmitArgs),
    /// Take the jobs of a run off the cluster; what they have done is kept.
    Cancel {
        /// The name of the run, or its folder.
        run: PathBuf,
    },
    /// Convert scores: MusicXML to ABC; ABC, standard or interleaved, to MusicXML or MIDI.
    Convert(ConvertArgs),
    /// Check pieces of ABC: do the voices have the same bars, and do the staves of an instrument stand together?
    Check {
        /// Folder of pieces, standard or interleaved ABC, or a packed corpus.
        folder: PathBuf,
    },
    /// Preprocess scores, MusicXML or standard ABC: interleaved ABC, the form NotaGen trains on, and indexes.
    Preprocess(PreprocessArgs),
    /// Write pieces of music.
    Generate(GenerateArgs),
    /// The log-probability of pieces under a model.
    ///
    /// Of a piece longer than the patches that the model sees at once, that of the beginning: a warning says so, and
    /// `truncated` with --json.
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
    /// CLaMP 2 features of pieces of interleaved ABC (or MTF), a .npy a piece.
    Features(FeaturesArgs),
    /// The average CLaMP 2 score of generated pieces, and its distribution.
    Score {
        /// Folder of features of the reference pieces.
        #[arg(long, value_name = "DIR")]
        reference: PathBuf,
        /// Folder of features of the generated pieces.
        #[arg(long, value_name = "DIR")]
        generated: PathBuf,
    },
    /// Choose and reject generated pieces: the preference data of DPO.
    Prefer(PreferArgs),
    /// Rank a corpus by a model's log-probability or by likeness to a reference, and keep the best of it as an index.
    Select(SelectArgs),
    /// Fetch weights, look into their files, and convert them.
    Weights {
        #[command(subcommand)]
        command: WeightsCommand,
    },
    /// Serve a page on this machine: choose, watch a piece being written, hear it, keep it.
    Demo(DemoArgs),
    /// Show what this machine has: libtorch, CUDA, NCCL, memory, corpora, weights.
    Doctor,
    /// Print the JSON schema of recipes.
    #[command(hide = true)]
    Schema,
}

/// What to show, and of which machines.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Predict what training takes on up to so many machines (docs/scaling.md).
    #[arg(long, value_name = "N")]
    pub nodes: Option<NonZeroU64>,
    /// GPUs of each of these machines (8; processes of a CPU: 1).
    #[arg(long, value_name = "G")]
    pub gpus_per_node: Option<NonZeroU64>,
    /// Predict for so many training pieces where there is no index yet.
    #[arg(long, value_name = "P")]
    pub pieces: Option<u64>,
    /// What they are.
    #[arg(long, default_value = "a100")]
    pub machine: MachineArg,
    /// What connects them.
    #[arg(long, default_value = "infiniband")]
    pub network: NetworkArg,
}

/// Machines whose speeds are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MachineArg {
    A100,
    H100,
    Cpu,
}

/// Networks whose speeds are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    Infiniband,
    Ethernet,
}

#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// What to write.
    #[arg(long)]
    pub to: Format,
    /// Folder for what is written; what is newer there than its score is left as it is.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Files, folders with all that is below them, and packed corpora; to abc, packed pieces are unpacked.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// A format of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Standard ABC, as the original's converter writes it.
    Abc,
    /// MusicXML 4.0.
    Musicxml,
    /// Standard MIDI files, a track a voice, repeats played out.
    Midi,
}

#[derive(Debug, Args)]
pub struct PreprocessArgs {
    /// Folder of scores, MusicXML or standard ABC.
    #[arg(long, value_name = "DIR")]
    pub scores: PathBuf,
    /// Folder for interleaved ABC.
    #[arg(long, value_name = "DIR", required_unless_present = "pack")]
    pub interleaved: Option<PathBuf>,
    /// One compressed file for interleaved ABC, instead of the folder or besides.
    #[arg(long, value_name = "FILE")]
    pub pack: Option<PathBuf>,
    /// Folder for the form NotaGen trains on; the indexes lie beside it.
    #[arg(long, value_name = "DIR")]
    pub augmented: PathBuf,
    /// The keys that pieces are written in: each piece's own, all fifteen, or none: training moves the interleaved or
    /// packed pieces as it reads them (all; with --pack none).
    #[arg(long, value_parser = word::<Keys>(&["original", "all", "none"]))]
    pub keys: Option<Keys>,
    /// The portion of the pieces kept for evaluation.
    #[arg(long, default_value_t = 0.1)]
    pub eval_split: f64,
    /// The seed of the split.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A table, piece,period,composer,instrumentation in its first line, of the prompts that pieces begin with.
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
    pub samples: usize,
    /// Record a Chrome trace of N rounds: profile.json in the output folder.
    #[arg(long, value_name = "N")]
    pub profile: Option<u64>,
    /// Pieces written at a time (as many as the memory holds).
    #[arg(long, value_name = "B")]
    pub batch_size: Option<usize>,
    /// The seed of the drawing.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Draw from the k likeliest characters.
    #[arg(long, default_value_t = 9)]
    pub top_k: u32,
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
    pub max_characters: Option<usize>,
    /// End a piece after this many patches.
    #[arg(long)]
    pub max_patches: Option<usize>,
    #[command(flatten)]
    pub on: On,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The weights.
    #[arg(long)]
    pub weights: PathBuf,
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 7861)]
    pub port: u16,
    /// The address to listen on: 0.0.0.0 serves other machines too.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Offer these prompts, a file with one Period_Composer_Instrumentation a line (of NotaGen-X: the published ones).
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Offer no prompts to choose from, but lines of one's own.
    #[arg(long, conflicts_with = "prompts")]
    pub free_prompts: bool,
    /// Pieces written at once (8, or as many as the memory holds); others wait.
    #[arg(long, value_name = "N")]
    pub at_once: Option<usize>,
    /// Pieces that may wait.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub queue: usize,
    /// The largest request, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 4096)]
    pub max_body: usize,
    /// Give an attempt at a piece up after this many seconds, its share of the time.
    #[arg(long, value_name = "S", default_value_t = 1200.0)]
    pub max_seconds: f64,
    /// End every piece after this many patches.
    #[arg(long, value_name = "N")]
    pub max_patches: Option<usize>,
    #[command(flatten)]
    pub on: On,
}

#[derive(Debug, Args)]
pub struct FeaturesArgs {
    /// The weights of CLaMP 2 or M3.
    #[arg(long, value_name = "CLAMP2")]
    pub weights: PathBuf,
    /// Folder of interleaved ABC, or a packed corpus.
    #[arg(long, value_name = "DIR")]
    pub input: PathBuf,
    /// Folder for the features.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Only pieces whose name matches this glob.
    #[arg(long, value_name = "GLOB")]
    pub pieces: Option<String>,
    /// Only every n-th piece, from number i on, i counted from 0: the n shards together are the whole.
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = shard)]
    pub shard: (usize, usize),
    #[command(flatten)]
    pub on: On,
}

#[derive(Debug, Args)]
pub struct PreferArgs {
    /// Folder of features of the reference pieces.
    #[arg(long, value_name = "DIR")]
    pub reference: PathBuf,
    /// Folder of features of the generated pieces.
    #[arg(long, value_name = "DIR")]
    pub features: PathBuf,
    /// Folder of the generated pieces, interleaved.
    #[arg(long, value_name = "DIR")]
    pub interleaved: PathBuf,
    /// Folder of the generated pieces as the model wrote them.
    #[arg(long, value_name = "DIR")]
    pub original: PathBuf,
    /// The portion chosen, and the portion rejected.
    #[arg(long, default_value_t = 0.1, allow_negative_numbers = true)]
    pub select: f64,
    /// A piece more like a reference piece than this is not chosen.
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    pub similarity_limit: f64,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct SelectArgs {
    /// What to choose from: an index, or a folder of ABC, interleaved or standard.
    #[arg(long, value_name = "PATH")]
    pub corpus: PathBuf,
    /// Only pieces whose name matches this glob.
    #[arg(long, value_name = "GLOB")]
    pub pieces: Option<String>,
    /// What ranks the pieces: log-probability or clamp2 (log-probability where --weights is given).
    #[arg(long)]
    pub by: Option<ByArg>,
    /// The weights of NotaGen that say how likely a piece is.
    #[arg(long)]
    pub weights: Option<PathBuf>,
    /// The weights of CLaMP 2 or M3 that say how like the reference a piece is.
    #[arg(long, value_name = "CLAMP2", requires = "reference")]
    pub clamp2: Option<PathBuf>,
    /// Folder of features of the reference pieces, by the same weights.
    #[arg(long, value_name = "DIR", requires = "clamp2")]
    pub reference: Option<PathBuf>,
    /// Pieces to keep.
    #[arg(long, value_name = "N", conflicts_with = "portion")]
    pub count: Option<NonZeroU64>,
    /// The portion of the pieces to keep.
    #[arg(long, value_name = "P")]
    pub portion: Option<f64>,
    /// Keep only pieces that score at least this.
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub threshold: Option<f64>,
    /// The portion of bars in common with a better piece that makes a piece its duplicate; above 1 nothing is.
    #[arg(long, value_name = "P", default_value_t = 0.8)]
    pub duplicates: f64,
    /// The index to write; scores on the way go to a hidden folder beside it.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub on: On,
}

/// What ranks pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ByArg {
    LogProbability,
    Clamp2,
}

const DTYPES: &[&str] = &["fp32", "bf16", "fp16"];

/// One of the words that a recipe has for the same.
fn word<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: for<'de> Deserialize<'de> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| T::deserialize(StrDeserializer::<Error>::new(&word)))
}

/// Where to compute, and in what.
#[derive(Debug, Args)]
pub struct On {
    /// auto, cpu or cuda.
    #[arg(long, default_value = "auto", value_parser = word::<Device>(&["auto", "cpu", "cuda"]))]
    pub device: Device,
    /// The number format of the arithmetic, on a GPU.
    #[arg(long, default_value = "fp32", value_parser = word::<Dtype>(DTYPES))]
    pub precision: Dtype,
}

#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Show what a weights file holds, without loading it.
    Inspect {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Fetch published weights into the hub's cache, with a link in checkpoints/; without a name, list them.
    Fetch {
        /// Names of the list, names of published files, or hf://owner/repo/file.
        names: Vec<String>,
        /// List what is published, and which of it is here.
        #[arg(long, conflicts_with = "names")]
        list: bool,
    },
    /// Write the weights of a file as another: .pth or .safetensors, by the name.
    Export {
        /// The file to read.
        file: PathBuf,
        /// The file to write.
        #[arg(long)]
        output: PathBuf,
        /// The number format of the weights (as they are).
        #[arg(long, value_parser = word::<Dtype>(DTYPES))]
        dtype: Option<Dtype>,
        /// Take optimizer and schedule along (.pth).
        #[arg(long)]
        everything: bool,
    },
}
