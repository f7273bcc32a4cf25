//! An opened file of weights.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::kind::{WeightsKind, kind_of};
use super::{Error, LrSchedule, OptimizerState, StateDict, infer, m3_architecture, safetensors};
use crate::pth::{self, Dict, TensorRef, TensorValue, Value};

/// Where checkpoints keep the weights, if they are not the top itself.
const MODEL_KEYS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// A `.pth` or safetensors file: its weights and what else is in it, all of it still in the file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    state: StateDict,
    rest: Dict,
}

impl Checkpoint {
    /// Opens a file; what it is, its first bytes say.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if is_safetensors(path) {
            let (tensors, rest) = safetensors::open(path)?;
            return Ok(Self { path: path.to_path_buf(), state: StateDict::new(path, tensors), rest });
        }
        let root = pth::File::open(path)?.into_root();
        let Value::Dict(mut root) = root else {
            return Err(no_weights(path, "no dict".into()));
        };
        for key in MODEL_KEYS {
            if let Some(tensors) = root.get(key).and_then(Value::as_dict).map(tensors).filter(|t| !t.is_empty()) {
                root.remove(key);
                return Ok(Self { path: path.to_path_buf(), state: StateDict::new(path, tensors), rest: root });
            }
        }
        let bare = tensors(&root);
        if bare.is_empty() {
            let keys: Vec<_> = root.text_entries().take(5).map(|(key, _)| format!("`{key}`")).collect();
            let found = if keys.is_empty() { "an empty dict".into() } else { keys.join(", ") };
            return Err(no_weights(path, found));
        }
        Ok(Self { path: path.to_path_buf(), state: StateDict::new(path, bare), rest: Dict::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The weights.
    pub fn state(&self) -> &StateDict {
        &self.state
    }

    /// The weights.
    pub fn into_state(self) -> StateDict {
        self.state
    }

    /// What is in the file besides the weights.
    pub fn rest(&self) -> &Dict {
        &self.rest
    }

    /// A part of the file besides the weights.
    pub fn entry(&self, key: &str) -> Option<&Value> {
        self.rest.get(key)
    }

    /// The epoch after which it was saved.
    pub fn epoch(&self) -> Result<Option<i64>, Error> {
        Ok(self.number("epoch")?.map(|number| number as i64))
    }

    /// The epoch with the best evaluation loss.
    pub fn best_epoch(&self) -> Result<Option<i64>, Error> {
        Ok(self.number("best_epoch")?.map(|number| number as i64))
    }

    /// The best evaluation loss.
    pub fn min_eval_loss(&self) -> Result<Option<f64>, Error> {
        self.number("min_eval_loss")
    }

    /// The optimizer's state, if there is one; its shapes are checked where this is a NotaGen or an M3.
    pub fn optimizer(&self) -> Result<Option<OptimizerState>, Error> {
        let Some(value) = self.entry("optimizer") else {
            return Ok(None);
        };
        let state = OptimizerState::from_value(&self.path, value)?;
        match kind_of(&self.state) {
            Some(WeightsKind::NotaGen) => state.check(&self.path, &infer::architecture(&self.state)?.parameters())?,
            Some(WeightsKind::M3) => state.check(&self.path, &m3_architecture(&self.state)?.0.parameters())?,
            _ => {}
        }
        Ok(Some(state))
    }

    /// The learning-rate schedule's state, if there is one.
    pub fn schedule(&self) -> Result<Option<LrSchedule>, Error> {
        self.entry("lr_sched").map(|value| LrSchedule::from_value(&self.path, value)).transpose()
    }

    /// A number, which PyTorch may have saved as a tensor.
    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.entry(key) {
            Some(Value::Tensor(tensor)) => Ok(Some(tensor.scalar()?)),
            Some(value) => Ok(value.as_f64()),
            None => Ok(None),
        }
    }
}

fn tensors(dict: &Dict) -> Vec<(String, Arc<TensorRef>)> {
    let stored = |(name, value): (&str, &Value)| match value {
        Value::Tensor(TensorValue::Stored(tensor)) => Some((name.to_string(), tensor.clone())),
        _ => None,
    };
    dict.text_entries().filter_map(stored).collect()
}

fn no_weights(path: &Path, found: String) -> Error {
    Error::NoWeights { path: path.to_path_buf(), found }
}

fn is_safetensors(path: &Path) -> bool {
    let mut head = Vec::new();
    let Ok(file) = File::open(path) else {
        return false;
    };
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    if file.take(16).read_to_end(&mut head).is_err() || head.starts_with(b"PK") {
        return false;
    }
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    pth::is_safetensors(&head, len) || named && head.get(8) == Some(&b'{')
}
