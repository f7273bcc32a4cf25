//! Copies of weights and moments in the CPU's memory, from which files are written while the training goes on.
use crate::{Error, Optimizer, Result, Trainable};
use model::pth::TensorValue;
use model::weights::Moments;
use std::collections::{BTreeMap, HashMap};
use tch::Tensor;

/// Weights by name, and moments by the index of their parameter.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) weights: Vec<(String, Tensor)>,
    pub(super) moments: BTreeMap<usize, Moments>,
}

impl Copies {
    /// Gathers what the ranks keep; one that does not write gets no copies. All ranks ask together. After the last step
    /// (`is_over`) nothing changes any more, and the tensors are taken as they are: copies of large networks take seconds.
    pub(super) fn gather(
        network: &impl Trainable,
        optimizer: &Optimizer,
        writes: bool,
        is_over: bool,
    ) -> Result<Copies> {
        let mut copies = Copies::default();
        for (i, &index) in optimizer.indices.iter().enumerate() {
            let moments = optimizer.moments(i)?;
            if writes {
                let missing = |_| Error::Internal("a copy of a tensor is missing".to_owned());
                let [step, exp_avg, exp_avg_sq] = match is_over {
                    true => moments,
                    false => torch_ext::receive(&moments)?.try_into().map_err(missing)?,
                };
                let (exp_avg, exp_avg_sq) = (TensorValue::Loaded(exp_avg), TensorValue::Loaded(exp_avg_sq));
                copies.moments.insert(index, Moments { step: step.f_double_value(&[])?, exp_avg, exp_avg_sq });
            }
        }
        if writes {
            copies.weights = if is_over { network.state_dict() } else { weights(network)? };
        }
        Ok(copies)
    }
}

/// Copies of the weights; tied tensors stay tied.
pub(super) fn weights(network: &impl Trainable) -> Result<Vec<(String, Tensor)>> {
    let (names, weights): (Vec<String>, Vec<Tensor>) = network.state_dict().into_iter().unzip();
    let mut indices = HashMap::new();
    let mut different = Vec::new();
    let mut which = Vec::with_capacity(weights.len());
    for tensor in &weights {
        which.push(*indices.entry(tensor.data_ptr() as usize).or_insert_with(|| {
            different.push(tensor.shallow_clone());
            different.len() - 1
        }));
    }
    let copies = torch_ext::receive(&different)?;
    Ok(names.into_iter().zip(which).map(|(name, i)| (name, copies[i].shallow_clone())).collect())
}
