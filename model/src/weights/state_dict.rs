//! Names and tensors of a network, the tensors still in the file.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tch::{Device, Tensor};

use super::Error;
use crate::{architecture, m3, pth::TensorRef};

/// What wrappers put before every name: DistributedDataParallel, `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Output layers, and the embeddings that they are.
const TIES: [(&str, &str); 2] = [(architecture::TIED, architecture::TIED_TO), (m3::TIED, m3::TIED_TO)];

/// The named tensors of a file, in its order.
#[derive(Debug, Clone)]
pub struct StateDict {
    path: PathBuf,
    tensors: Vec<(String, Arc<TensorRef>)>,
    index: HashMap<String, usize>,
}

impl StateDict {
    /// Takes wrappers' prefixes off the names, and passes over what transformers kept as buffers until version 4.30. An
    /// output layer without its embedding gets the embedding's name.
    pub(super) fn new(path: &Path, mut tensors: Vec<(String, Arc<TensorRef>)>) -> Self {
        while let Some(wrapper) = wrapper(&tensors) {
            for (name, _) in &mut tensors {
                name.drain(..wrapper.len());
            }
        }
        tensors.retain(|(name, tensor)| !is_buffer(name, tensor.shape()));
        for (output, embedding) in TIES {
            if tensors.iter().all(|(name, _)| name != embedding) {
                tensors
                    .iter_mut()
                    .filter(|(name, _)| name == output)
                    .for_each(|(name, _)| *name = embedding.to_owned());
            }
        }
        let index = tensors.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        Self { path: path.to_path_buf(), tensors, index }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and tensors in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<TensorRef>)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor of this name, still in the file.
    pub fn get(&self, name: &str) -> Option<&Arc<TensorRef>> {
        self.index.get(name).map(|at| &self.tensors[*at].1)
    }

    /// Refuses an output layer that is not the embedding: one of the two would be lost. Numbers of different types are
    /// compared in the coarser.
    pub fn check_ties(&self) -> Result<(), Error> {
        for (output, embedding) in TIES {
            if let (Some(a), Some(b)) = (self.get(output), self.get(embedding))
                && !equal(a, b)?
            {
                return Err(Error::Untied { path: self.path.clone(), output, embedding });
            }
        }
        Ok(())
    }

    /// Reads the tensor of this name onto `device`, in its own element type; nothing if there is none.
    pub fn load(&self, name: &str, device: Device) -> Result<Option<Tensor>, Error> {
        Ok(self.get(name).map(|tensor| tensor.load(device)).transpose()?)
    }

    /// Reads the tensor of this name onto `device`; it has to be there, and to have this shape.
    pub fn require(&self, name: &str, shape: &[i64], device: Device) -> Result<Tensor, Error> {
        let Some(tensor) = self.get(name) else {
            return Err(Error::MissingKey { path: self.path.clone(), key: name.into(), more: 0 });
        };
        if tensor.shape() != shape {
            let (found, expected) = (tensor.shape().to_vec(), shape.to_vec());
            return Err(Error::Shape { path: self.path.clone(), key: name.into(), found, expected });
        }
        Ok(tensor.load(device)?)
    }
}

/// Whether two tensors hold the same numbers: safetensors cannot share them.
pub(super) fn equal(a: &TensorRef, b: &TensorRef) -> Result<bool, Error> {
    if a.same_as(b) {
        return Ok(true);
    }
    let (a, b) = (a.load(Device::Cpu)?, b.load(Device::Cpu)?);
    let same = |a: &Tensor, b: &Tensor| a.f_to_kind(b.kind()).and_then(|a| a.f_equal(b)).unwrap_or(false);
    Ok(same(&a, &b) || same(&b, &a))
}

fn wrapper(tensors: &[(String, Arc<TensorRef>)]) -> Option<&'static str> {
    let everywhere = |wrapper: &&str| tensors.iter().all(|(name, _)| name.starts_with(wrapper));
    WRAPPERS.into_iter().find(everywhere).filter(|_| !tensors.is_empty())
}

/// What transformers kept in state dicts besides parameters: causal masks, numbers of positions and token types.
fn is_buffer(name: &str, shape: &[i64]) -> bool {
    let ends = |end: &str| name.ends_with(end);
    ends(".attn.bias") && shape.len() == 4
        || ends(".attn.masked_bias") && shape.is_empty()
        || ends(".embeddings.position_ids")
        || ends(".embeddings.token_type_ids")
}
