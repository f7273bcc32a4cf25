//! Writes the original's checkpoints.

use std::path::Path;

use tch::Tensor;

use super::{Error, LrSchedule, OptimizerState};
use crate::pth::{self, Dict, Value};

/// What goes into a checkpoint. The original's training scripts need everything down to
/// `min_eval_loss`; its inference needs the model alone, and its RL script writes no more.
#[derive(Debug, Default)]
pub struct CheckpointParts {
    /// Names and tensors, in the order of PyTorch's `state_dict()`, on any device.
    pub model: Vec<(String, Tensor)>,
    /// The optimizer.
    pub optimizer: Option<OptimizerState>,
    /// The learning-rate schedule.
    pub schedule: Option<LrSchedule>,
    /// Epochs done.
    pub epoch: Option<i64>,
    /// The epoch with the best evaluation loss.
    pub best_epoch: Option<i64>,
    /// The best evaluation loss.
    pub min_eval_loss: Option<f64>,
    /// What this trainer needs to resume and the original does not know: it passes over it.
    pub notagen_train: Option<Value>,
}

impl CheckpointParts {
    /// The tree to be written.
    pub fn to_value(&self) -> Value {
        let mut model = Dict::ordered();
        for (name, tensor) in &self.model {
            model.insert(name.as_str(), tensor);
        }
        let parts = [
            ("optimizer", self.optimizer.as_ref().map(OptimizerState::to_value)),
            ("lr_sched", self.schedule.as_ref().map(LrSchedule::to_value)),
            ("epoch", self.epoch.map(Value::Int)),
            ("best_epoch", self.best_epoch.map(Value::Int)),
            ("min_eval_loss", self.min_eval_loss.map(Value::Float)),
            ("notagen_train", self.notagen_train.clone()),
        ];
        let mut root = Dict::new();
        root.insert("model", model);
        for (key, value) in parts {
            if let Some(value) = value {
                root.insert(key, value);
            }
        }
        root.into()
    }
}

/// Writes a checkpoint that the original loads as it is; see [`pth::write`].
pub fn save_checkpoint(path: &Path, parts: &CheckpointParts) -> Result<(), Error> {
    Ok(pth::write(path, &parts.to_value())?)
}
