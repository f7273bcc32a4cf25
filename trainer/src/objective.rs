//! What the training loop asks of a network and of what it is to learn.
use crate::Result;
use model::Mode;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// A network that can be trained, saved and gone on with.
pub trait Network {
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

/// Examples to learn from, or to measure with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Learned from.
    Train,
    /// Evaluated on.
    Eval,
}

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose examples they are.
    pub set: Set,
    /// Counted from 0; 0 in evaluations.
    pub epoch: u64,
    /// Step of the epoch, counted from 0.
    pub step: u64,
    /// Part of the step, counted from 0 over the parts of all ranks.
    pub part: u64,
}

/// What a part of a step is made of.
#[derive(Debug)]
pub struct Part<I> {
    /// What the loss is computed from.
    pub input: I,
    /// How many things the loss is the mean of: characters, pairs.
    pub weight: i64,
    /// What it takes, for the speed.
    pub work: Work,
}

/// What there is to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Patches that go through the network.
    pub patches: f64,
    /// Characters whose probability is computed.
    pub tokens: f64,
    /// Floating-point operations, forward and backward, each counted once whatever is computed again.
    pub operations: f64,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.patches += other.patches;
        self.tokens += other.tokens;
        self.operations += other.operations;
    }
}

impl Work {
    /// Of so many pieces' patches, of which `predicted` have `tokens` characters together.
    pub(crate) fn of(
        (pieces, patches, predicted, tokens): (i64, i64, i64, i64),
        of_patch: impl Fn(f64) -> f64,
        of_character: impl Fn(f64) -> f64,
    ) -> Work {
        let [pieces, patches, predicted, tokens] = [pieces, patches, predicted, tokens].map(|count| count as f64);
        let forward =
            patches * of_patch(patches / pieces.max(1.0)) + tokens * of_character(tokens / predicted.max(1.0));
        Work { patches, tokens, operations: 3.0 * forward }
    }
}

/// The loss of a part.
#[derive(Debug)]
pub struct Loss {
    /// Summed over the part's weight: a float32 scalar.
    pub sum: Tensor,
    /// The objective's other numbers, each summed over the part's weight; nothing where it has none.
    pub values: Option<Tensor>,
}

/// What a network is to learn. Everything random in it depends on places alone, so that a training goes on after an
/// interruption as if there had been none.
pub trait Objective: Send + Sync + 'static {
    /// What learns.
    type Network: Network;
    /// What a worker thread makes of examples.
    type Input: Send + 'static;

    /// Names of the numbers besides the loss, in the order of [`Loss::values`].
    const VALUES: &'static [&'static str] = &[];
    /// Whether the examples of a step are places of that step and not of a list that an epoch goes through.
    const DRAWN: bool = false;
    /// Whether the best weights are saved alone, without the optimizer.
    const WEIGHTS_ALONE: bool = false;

    /// Examples in a set.
    fn examples(&self, set: Set) -> usize;

    /// The examples of every step of an epoch, those of all ranks ([`crate::Settings::step_size`]).
    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>>;

    /// The examples of an evaluation, batch by batch; none where there is nothing to evaluate on.
    fn evaluation(&self) -> Vec<Vec<usize>> {
        Vec::new()
    }

    /// Makes a part of a step, on a worker thread.
    fn load(&self, place: Place, examples: &[usize]) -> Result<Part<Self::Input>>;

    /// The tensors of what [`Objective::load`] makes: they go to the network's device together, before the loss.
    fn tensors(input: &mut Self::Input) -> Vec<&mut Tensor> {
        let _ = input;
        Vec::new()
    }

    /// The loss of a part. Runs under autocast.
    fn loss(&self, network: &Self::Network, input: Self::Input, mode: Mode) -> Result<Loss>;

    /// What a person should know about the means of a log window.
    fn warning(&self, values: &BTreeMap<String, f64>) -> Option<String> {
        let _ = values;
        None
    }
}
