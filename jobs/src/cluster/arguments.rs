//! What a recipe is submitted with.
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::plan::Selection;
use crate::recipe::Resources;

/// What to submit, where to, and what each stage may use there.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The recipe.
    pub recipe: PathBuf,
    /// What runs the jobs.
    #[arg(long)]
    pub cluster: Cluster,
    /// Set a key: finetune.learning_rate=2e-5, seed=1.
    #[arg(long, value_name = "K=V")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Give a stage up after so many restarts: for want of time, killed, or with their node.
    #[arg(long, value_name = "R", default_value_t = 20)]
    pub max_restarts: u64,
    /// Print the scripts, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Kubernetes: the image of the pods, with notagen-train on its PATH.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Kubernetes: the claim of the volume with recipe, data and runs, which all nodes can write to at once.
    #[arg(long, value_name = "CLAIM")]
    pub volume: Option<String>,
    /// Instead of the recipe's.
    #[command(flatten, next_help_heading = "Instead of the recipe's resources")]
    pub resources: Resources,
}

/// What runs jobs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Cluster {
    /// A batch script a job, submitted with sbatch.
    Slurm,
    /// Indexed Jobs for kubectl, printed only (--dry-run): a pod a process, on a volume that all nodes share.
    Kubernetes,
}
