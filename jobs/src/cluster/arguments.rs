//! What a recipe is submitted with.
use std::{num::NonZeroU64, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::{plan::Selection, recipe::Resources};

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
    /// Machines of each stage (the recipe's `resources`, as all that follows).
    #[arg(long, value_name = "N")]
    pub nodes: Option<NonZeroU64>,
    /// GPUs of each machine, a process each.
    #[arg(long, value_name = "G")]
    pub gpus_per_node: Option<u64>,
    /// The longest time of one job, as Slurm writes it: 30, 24:00:00, 2-12.
    #[arg(long, value_name = "T")]
    pub time: Option<String>,
    /// The partition.
    #[arg(long, value_name = "P")]
    pub partition: Option<String>,
    /// The account that pays.
    #[arg(long, value_name = "A")]
    pub account: Option<String>,
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
}

/// What runs jobs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Cluster {
    /// A batch script a job, submitted with sbatch.
    Slurm,
    /// Indexed Jobs for kubectl, printed only (--dry-run): a pod a process, on a volume that all nodes share.
    Kubernetes,
}

impl SubmitArgs {
    pub fn resources(&self) -> Resources {
        Resources {
            nodes: self.nodes,
            gpus_per_node: self.gpus_per_node,
            time: self.time.clone(),
            partition: self.partition.clone(),
            account: self.account.clone(),
            extra: None,
        }
    }
}
