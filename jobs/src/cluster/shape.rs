//! How a stage becomes jobs: what it asks for, and how many processes on how many machines.
use std::num::NonZeroU64;

use crate::plan::{Plan, Planned};
use crate::recipe::{Device, Resources, Stage};

/// How a script runs its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobShape {
    /// All of it, with so many processes on each of so many nodes.
    Whole { nodes: u64, tasks_per_node: u64, gpus_per_node: u64 },
    /// As an array of so many jobs with a process each; another job, of the shape `Whole`, records the stage.
    Shards { count: u64, gpus: u64 },
}

/// What a stage asks for: the command line, the stage, the recipe, in this order.
pub fn resources(args: &Resources, plan: &Plan, planned: &Planned) -> Resources {
    let none = Resources::default();
    let (stage, recipe) = (planned.stage.resources(), plan.recipe.resources.as_ref());
    args.or(&stage.unwrap_or(&none).or(recipe.unwrap_or(&none)))
}

/// The jobs of a stage: one, or the shares' and the one that records them.
pub fn shapes(plan: &Plan, planned: &Planned, resources: &Resources) -> Vec<JobShape> {
    let of_device = u64::from(plan.recipe.device != Device::Cpu);
    let gpus = resources.gpus_per_node.unwrap_or(of_device);
    let nodes = count(resources.nodes);
    let alone = |gpus: u64| JobShape::Whole { nodes: 1, tasks_per_node: 1, gpus_per_node: gpus };
    match &planned.stage {
        stage if stage.works_by_pieces() => match nodes * gpus.max(1) {
            1 => vec![alone(gpus)],
            shares => vec![JobShape::Shards { count: shares, gpus: gpus.min(1) }, alone(gpus.min(1))],
        },
        Stage::Preprocess(_) | Stage::Score(_) | Stage::Prefer(_) => vec![alone(0)],
        _ => vec![JobShape::Whole { nodes, tasks_per_node: gpus.max(1), gpus_per_node: gpus }],
    }
}

/// A count from the recipe or the command line.
pub fn count(number: Option<NonZeroU64>) -> u64 {
    number.map_or(1, NonZeroU64::get)
}
