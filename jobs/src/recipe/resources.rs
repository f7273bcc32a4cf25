//! What a stage asks of a cluster.
use std::fmt;
use std::num::NonZeroU64;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a stage asks of a cluster. It has no effect where no cluster runs it, and none on the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Machines (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N")]
    pub nodes: Option<NonZeroU64>,
    /// GPUs of each machine, a process each (1, or 0 with `device: cpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "G")]
    pub gpus_per_node: Option<u64>,
    /// The longest time of one job, as Slurm writes it: minutes, hours:minutes:seconds, days-hours (the partition's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "T")]
    pub time: Option<String>,
    /// The partition (the cluster's default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "P")]
    pub partition: Option<String>,
    /// The account that pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "A")]
    pub account: Option<String>,
    /// Further options of sbatch, one a word: ["--cpus-per-task=8", "--constraint=a100"].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(skip)]
    pub extra: Option<Vec<String>>,
}

impl Resources {
    /// These, and where they say nothing the others.
    pub fn or(&self, others: &Resources) -> Resources {
        Resources {
            nodes: self.nodes.or(others.nodes),
            gpus_per_node: self.gpus_per_node.or(others.gpus_per_node),
            time: self.time.clone().or_else(|| others.time.clone()),
            partition: self.partition.clone().or_else(|| others.partition.clone()),
            account: self.account.clone().or_else(|| others.account.clone()),
            extra: self.extra.clone().or_else(|| others.extra.clone()),
        }
    }
}

impl fmt::Display for Resources {
    /// Its keys, those that say something.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Resources { nodes, gpus_per_node, time, partition, account, extra } = self;
        let number = |key: &str, value: Option<u64>| value.map(|value| format!("{key} {value}"));
        let word = |key: &str, value: &Option<String>| value.as_ref().map(|value| format!("{key} {value}"));
        let words = [
            number("nodes", nodes.map(NonZeroU64::get)),
            number("gpus_per_node", *gpus_per_node),
            word("time", time),
            word("partition", partition),
            word("account", account),
            extra.as_ref().map(|options| options.join(" ")),
        ];
        formatter.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}
