//! What the training loop asks of a network and of what it is to learn.
use crate::Result;
use model::Mode;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// A network that can be trained, saved and resumed.
pub trait Trainable {
    /// Where its parameters are.
    fn device(&self) -> Device;

    /// Names and tensors in the order of PyTorch's `model.parameters()`.
    fn parameters(&self) -> &[(String, Tensor)];

    /// Whether a parameter is used, and so gets a gradient.
    fn uses(&self, parameter: &str) -> bool {
        let _ = parameter;
        true
    }

    /// Names and tensors in the order of PyTorch's `model.state_dict()`.
    fn state_dict(&self) -> Vec<(String, Tensor)>;

    /// Copies weights in: `get` gives the tensor of a name, or nothing where the file has none.
    fn load(&self, get: &mut dyn FnMut(&str) -> Result<Option<Tensor>>) -> Result<()>;
}

macro_rules! trainable {
    ($network:ty, $unused:expr) => {
        impl Trainable for $network {
            fn device(&self) -> Device {
                self.device()
            }

            fn parameters(&self) -> &[(String, Tensor)] {
                self.parameters()
            }

            fn uses(&self, parameter: &str) -> bool {
                !$unused.contains(&parameter)
            }

            fn state_dict(&self) -> Vec<(String, Tensor)> {
                self.state_dict()
            }

            fn load(&self, get: &mut dyn FnMut(&str) -> Result<Option<Tensor>>) -> Result<()> {
                self.load(get)
            }
        }
    };
}

trainable!(model::NotaGen, [model::UNUSED_PARAMETER]);
trainable!(model::m3::M3, model::m3::UNUSED_PARAMETERS);

/// What examples are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// To learn from.
    Train,
    /// To evaluate with.
    Eval,
}

/// Which micro-batch of a training it is: everything random in it depends on this and the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatchId {
    /// What its examples are for.
    pub split: Split,
    /// Counted from 0; 0 in evaluations.
    pub epoch: u64,
    /// Step of the epoch, counted from 0.
    pub step: u64,
    /// Micro-batch of the step, counted from 0 over all ranks.
    pub index: u64,
}

/// Examples that go through the network together: a part of an optimizer step.
#[derive(Debug)]
pub struct MicroBatch<I> {
    /// What the loss is computed from.
    pub input: I,
    /// How many things the loss is the mean of: characters, pairs.
    pub weight: i64,
    /// What there is to compute, for the speed.
    pub work: Workload,
}

/// What there is to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Workload {
    /// Patches that go through the network.
    pub patches: f64,
    /// Characters whose probability is computed.
    pub tokens: f64,
    /// Floating-point operations, forward and backward, each counted once whatever is computed again.
    pub operations: f64,
}

impl std::ops::AddAssign for Workload {
    fn add_assign(&mut self, other: Workload) {
        self.patches += other.patches;
        self.tokens += other.tokens;
        self.operations += other.operations;
    }
}

impl Workload {
    /// Of so many patches of so many pieces; `predicted` of the patches are predicted, with `tokens` characters in all.
    pub(crate) fn of(
        (pieces, patches, predicted, tokens): (i64, i64, i64, i64),
        of_patch: impl Fn(f64) -> f64,
        of_character: impl Fn(f64) -> f64,
    ) -> Workload {
        let [pieces, patches, predicted, tokens] = [pieces, patches, predicted, tokens].map(|count| count as f64);
        let forward =
            patches * of_patch(patches / pieces.max(1.0)) + tokens * of_character(tokens / predicted.max(1.0));
        Workload { patches, tokens, operations: 3.0 * forward }
    }
}

/// The loss of a micro-batch.
#[derive(Debug)]
pub struct Loss {
    /// Summed over the micro-batch's weight: a float32 scalar.
    pub sum: Tensor,
    /// The objective's other numbers, each summed over the micro-batch's weight, if it has any.
    pub values: Option<Tensor>,
}

/// What a network is to learn. Everything random in it depends on the seed and the [`MicroBatchId`] alone, so that a
/// training that was interrupted goes on to the same weights.
pub trait Objective: Send + Sync + 'static {
    /// The network that learns.
    type Network: Trainable;
    /// What a loader thread makes of examples.
    type Input: Send + 'static;

    /// Names of the numbers besides the loss, in the order of [`Loss::values`].
    const VALUES: &'static [&'static str] = &[];
    /// Whether the examples of a step are drawn anew, and not taken from a list that an epoch goes through.
    const DRAWN: bool = false;
    /// Whether the best weights are saved alone, without the optimizer.
    const BEST_WITHOUT_OPTIMIZER: bool = false;

    /// How many examples there are.
    fn examples(&self, split: Split) -> usize;

    /// The examples of every step of an epoch, those of all ranks ([`crate::Settings::step_size`]).
    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>>;

    /// The examples of an evaluation, batch by batch; none where there is nothing to evaluate on.
    fn evaluation(&self) -> Vec<Vec<usize>> {
        Vec::new()
    }

    /// Makes a micro-batch of examples, on a loader thread.
    fn load(&self, id: MicroBatchId, examples: &[usize]) -> Result<MicroBatch<Self::Input>>;

    /// The tensors of what [`Objective::load`] makes: they go to the network's device together, before the loss.
    fn tensors(input: &mut Self::Input) -> Vec<&mut Tensor> {
        let _ = input;
        Vec::new()
    }

    /// The loss of a micro-batch. Runs under autocast.
    fn loss(&self, network: &Self::Network, input: Self::Input, mode: Mode) -> Result<Loss>;

    /// A warning about the means of a log window, by the names in [`Objective::VALUES`].
    fn warning(&self, values: &BTreeMap<String, f64>) -> Option<String> {
        let _ = values;
        None
    }
}
