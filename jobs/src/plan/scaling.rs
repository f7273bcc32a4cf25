//! What a training stage would take on many GPUs, on paper: counted operations and bytes over stated speeds.
//! docs/scaling.md says where the speeds come from and what is assumed.
use model::Architecture;
use serde::Serialize;
use trainer::Dtype;

use crate::plan::cost::{self, Cost};
use crate::recipe::Training;

/// Where it would run: speeds by data sheet, and how much of each is assumed to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Machine {
    pub name: &'static str,
    /// Operations a second of one GPU, dense, in 16 bits (of the CPU: one core, fp32).
    pub peak: f64,
    pub utilisation: f64,
    /// Bytes a second of a GPU's memory.
    pub memory: f64,
    /// Bytes that a GPU holds.
    pub capacity: f64,
    /// Between the GPUs of a machine.
    pub inside: Link,
    /// Between machines, all ports of one together.
    pub between: Link,
}

/// How fast an all-reduce gets through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Link {
    pub name: &'static str,
    /// Bytes a second in one direction.
    pub peak: f64,
    pub utilisation: f64,
    /// Seconds of one hop.
    pub latency: f64,
}

impl Link {
    const fn of(name: &'static str, peak: f64, utilisation: f64, latency: f64) -> Link {
        Link { name, peak, utilisation, latency }
    }

    fn speed(self) -> f64 {
        self.peak * self.utilisation
    }
}

/// 100 Gb/s, one port a machine, over TCP.
const ETHERNET: Link = Link::of("Ethernet 100 Gb/s", 12.5e9, 0.7, 30e-6);

impl Machine {
    pub const A100: Machine = Machine {
        name: "A100 SXM 80 GB",
        peak: 312e12,
        utilisation: 0.3,
        memory: 2.04e12,
        capacity: 80e9,
        inside: Link::of("NVLink 3", 300e9, 0.78, 3e-6),
        between: Link::of("InfiniBand 8 × 200 Gb/s", 200e9, 0.8, 10e-6),
    };
    /// Its utilisation was measured, with four pieces of NotaGen-large.
    pub const H100: Machine = Machine {
        name: "H100 SXM 80 GB",
        peak: 989e12,
        utilisation: 0.37,
        memory: 3.35e12,
        capacity: 80e9,
        inside: Link::of("NVLink 4", 450e9, 0.8, 3e-6),
        between: Link::of("InfiniBand 8 × 400 Gb/s", 400e9, 0.8, 10e-6),
    };
    /// A core of the machine of docs/performance.md; processes on one machine talk through its loopback.
    pub const CPU: Machine = Machine {
        name: "one CPU core",
        peak: 187e9,
        utilisation: 0.34,
        memory: 10e9,
        capacity: 8e9,
        inside: Link::of("Gloo over loopback", 2e9, 0.75, 50e-6),
        between: ETHERNET,
    };

    /// The same machines, one port of Ethernet between them.
    pub fn with_ethernet(self) -> Machine {
        Machine { between: ETHERNET, ..self }
    }
}

/// A step on some GPUs. Seconds, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    pub gpus: u64,
    pub nodes: u64,
    pub compute: f64,
    pub optimizer: f64,
    /// Of all buckets, one after the other; of the new weights too, where the optimizer's state is sharded.
    pub communication: f64,
    /// The part of it that outlasts the backward pass, or follows it.
    pub exposed: f64,
    pub step: f64,
    /// Throughput of a GPU against one that works alone.
    pub efficiency: f64,
    pub patches_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
}

/// A stage's predictions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaling {
    pub machine: Machine,
    /// Weights, gradients, moments and activations of one GPU.
    pub memory_bytes: u64,
    pub fits: bool,
    pub gradient_bytes: u64,
    pub rows: Vec<Prediction>,
}

/// The buckets of `c10d::Reducer` as DistributedDataParallel sets it up.
const FIRST_BUCKET: f64 = 1024.0 * 1024.0;
const BUCKET: f64 = 25.0 * 1024.0 * 1024.0;

/// For 1, 2, 4, … GPUs up to all of so many machines.
pub fn predict(
    training: &Training,
    architecture: &Architecture,
    cost: &Cost,
    machine: Machine,
    nodes: u64,
    gpus_per_node: u64,
) -> Scaling {
    let all = nodes * gpus_per_node;
    let mut counts: Vec<u64> =
        std::iter::successors(Some(1_u64), |count| count.checked_mul(2)).take_while(|count| *count < all).collect();
    counts.push(all);
    // AdamW's two moments are half of the state.
    let elsewhere = if training.shard_optimizer && !training.optimizer_offload {
        cost.state_bytes / 2 * (all - 1) / all
    } else {
        0
    };
    let memory_bytes = cost.state_bytes - elsewhere + cost.activation_bytes;
    Scaling {
        machine,
        memory_bytes,
        fits: (memory_bytes as f64) < 0.95 * machine.capacity,
        gradient_bytes: (cost.parameters as f64 * gradient_width(training)) as u64,
        rows: counts.into_iter().map(|gpus| step(training, architecture, cost, machine, gpus, gpus_per_node)).collect(),
    }
}

/// Bytes of a number of the gradient as it travels.
fn gradient_width(training: &Training) -> f64 {
    if training.gradient_precision == Dtype::Fp32 { 4.0 } else { 2.0 }
}

fn step(
    training: &Training,
    architecture: &Architecture,
    cost: &Cost,
    machine: Machine,
    gpus: u64,
    gpus_per_node: u64,
) -> Prediction {
    let batch = training.batch_size().get() as u64;
    let patches = batch as f64 * architecture.patch_length as f64;
    // A forward pass is a third of the work; run a second time it makes four thirds.
    let again = if training.activation_checkpointing { 4.0 / 3.0 } else { 1.0 };
    // Where patches are drawn, the character decoder sees these alone.
    let drawn = match training.patch_sampling {
        0 => 1.0,
        drawn => (drawn as f64 / architecture.patch_length as f64).min(1.0),
    };
    let share = cost::share_of_characters(architecture);
    let work = cost.flops_per_patch * patches * (1.0 - share + share * drawn);
    let compute = work * again / (machine.peak * machine.utilisation);
    let parameters = cost.parameters as f64;
    // AdamW reads weight, gradient and two moments, and writes all but the gradient, in fp32.
    let shards = if training.shard_optimizer { gpus as f64 } else { 1.0 };
    let optimizer = parameters / shards * 28.0 / (machine.memory * 0.8);
    // Parts of a step before the last are accumulated without communication.
    let backward = compute * (1.0 - 1.0 / (3.0 * again)) / training.accumulation_steps.get() as f64;
    let gradients = parameters * gradient_width(training);
    let (gradients, end) = all_reduces(architecture, gradients, machine, gpus, gpus_per_node, backward);
    // The new weights go out once each, which is half of an all-reduce.
    let weights = if shards > 1.0 { all_reduce(parameters * 4.0, machine, gpus, gpus_per_node) / 2.0 } else { 0.0 };
    let communication = gradients + weights;
    let exposed = (end - backward).max(0.0) + weights;
    let step = compute + optimizer + exposed;
    let steps = match (training.steps, training.epochs, cost.pieces) {
        (Some(steps), _, _) => Some(steps.get()),
        (None, Some(epochs), Some(pieces)) => Some(epochs.get() * pieces.div_ceil(batch * gpus)),
        _ => None,
    };
    Prediction {
        gpus,
        nodes: gpus.div_ceil(gpus_per_node),
        compute,
        optimizer,
        communication,
        exposed,
        step,
        efficiency: (compute + optimizer) / step,
        patches_per_second: patches * gpus as f64 / step,
        steps,
        hours: steps.map(|steps| steps as f64 * step / 3600.0),
    }
}

/// Seconds of all buckets together, and when the last one is through, counted from the start of the backward pass: a
/// bucket starts when its gradients are there and the bucket before it is through.
fn all_reduces(a: &Architecture, bytes: f64, machine: Machine, gpus: u64, per_node: u64, backward: f64) -> (f64, f64) {
    if gpus == 1 {
        return (0.0, 0.0);
    }
    // The character decoder comes first in the backward pass: a fifth of the weights, most of the work.
    let h = a.hidden_size as f64;
    let of_characters = bytes / a.parameter_count() as f64 * (a.char_layers as f64 * 12.0 * h * h + 128.0 * h);
    let share = cost::share_of_characters(a);
    let ready = |done: f64| {
        if done <= of_characters {
            share * done / of_characters
        } else {
            share + (1.0 - share) * (done - of_characters) / (bytes - of_characters)
        }
    };
    let (mut done, mut communication, mut end) = (0.0, 0.0, 0.0_f64);
    while done < bytes {
        let bucket = if done == 0.0 { FIRST_BUCKET } else { BUCKET }.min(bytes - done);
        done += bucket;
        let seconds = all_reduce(bucket, machine, gpus, per_node);
        communication += seconds;
        end = end.max(backward * ready(done)) + seconds;
    }
    (communication, end)
}

/// Every byte crosses the slowest link twice, but for one GPU's share; the hops are those of a tree.
fn all_reduce(bytes: f64, machine: Machine, gpus: u64, per_node: u64) -> f64 {
    let hops = |count: u64| 2.0 * (count as f64).log2().ceil();
    let nodes = gpus.div_ceil(per_node);
    let inside = gpus.min(per_node);
    let mut speed = if inside > 1 { machine.inside.speed() } else { f64::INFINITY };
    let mut latency = hops(inside) * machine.inside.latency;
    if nodes > 1 {
        // Every GPU of a machine brings its part of the ports.
        speed = speed.min(machine.between.speed());
        latency += hops(nodes) * machine.between.latency;
    }
    2.0 * (gpus - 1) as f64 / gpus as f64 * bytes / speed + latency
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Stage;

    fn large(machine: Machine, nodes: u64, gpus: u64) -> Scaling {
        large_with(machine, nodes, gpus, serde_json::json!({}))
    }

    fn large_with(machine: Machine, nodes: u64, gpus: u64, more: serde_json::Value) -> Scaling {
        let mut stage = serde_json::json!({ "train": "none", "batch_size": 4, "epochs": 1, "precision": "fp16" });
        stage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let stage: Stage = serde_json::from_value(serde_json::json!({ "pretrain": stage })).unwrap();
        let architecture = Architecture::large();
        let training = stage.training().unwrap();
        let cost = Cost::of(training, &architecture, false);
        predict(training, &architecture, &cost, machine, nodes, gpus)
    }

    #[test]
    fn one_gpu_waits_for_nobody_and_more_lose_more() {
        let scaling = large(Machine::A100, 32, 8);
        assert_eq!(scaling.rows.iter().map(|row| row.gpus).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(scaling.rows[0].exposed, 0.0);
        assert_eq!(scaling.rows[0].efficiency, 1.0);
        for pair in scaling.rows.windows(2) {
            assert!(pair[1].efficiency <= pair[0].efficiency + 1e-12 && pair[1].communication >= pair[0].communication);
        }
        assert!(large(Machine::A100, 3, 8).rows.last().is_some_and(|row| row.gpus == 24 && row.nodes == 3));
    }

    #[test]
    fn a_slow_network_is_told_from_a_fast_one() {
        let of = |machine| large(machine, 4, 8).rows.pop().unwrap();
        let (fast, slow) = (of(Machine::A100), of(Machine::A100.with_ethernet()));
        assert!(fast.efficiency > 0.9 && slow.efficiency < fast.efficiency, "{fast:?} {slow:?}");
        // 2.06 GB twice, but for one part in 32, over 8.75 GB/s.
        let bytes = large(Machine::A100, 4, 8).gradient_bytes as f64;
        let floor = 2.0 * 31.0 / 32.0 * bytes / 8.75e9;
        assert!((slow.communication / floor - 1.0).abs() < 0.05, "{} {floor}", slow.communication);
        assert!(slow.exposed < slow.communication);
    }

    #[test]
    fn gradients_of_16_bits_and_shards_of_the_optimizer_count() {
        let of = |more| large_with(Machine::A100.with_ethernet(), 4, 8, more);
        let (plain, half) = (of(serde_json::json!({})), of(serde_json::json!({ "gradient_precision": "bf16" })));
        let sharded = of(serde_json::json!({ "shard_optimizer": true }));
        let last = |scaling: &Scaling| scaling.rows.last().unwrap().clone();
        assert_eq!(half.gradient_bytes * 2, plain.gradient_bytes);
        assert!((last(&half).communication / last(&plain).communication - 0.5).abs() < 0.05);
        // Of 16 bytes a weight 8 are shared by 32.
        let saved = (plain.memory_bytes - sharded.memory_bytes) as f64;
        assert!((saved / (plain.gradient_bytes as f64 * 2.0 * 31.0 / 32.0) - 1.0).abs() < 1e-6, "{saved}");
        assert!(last(&sharded).optimizer < last(&plain).optimizer && last(&sharded).exposed > last(&plain).exposed);
    }
}
