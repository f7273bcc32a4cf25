//! The learning-rate schedule's state, as PyTorch's `LambdaLR.state_dict()` keeps it.

use std::path::Path;

use super::Error;
use crate::pth::{Dict, Value};

/// The state of transformers' `get_constant_schedule_with_warmup`, a `LambdaLR` of PyTorch.
#[derive(Debug, Clone, PartialEq)]
pub struct LrSchedule {
    /// The learning rates of the groups, before the schedule's factor.
    pub base_lrs: Vec<f64>,
    /// The learning rates of the groups now.
    pub last_lr: Vec<f64>,
    /// Steps of the schedule so far.
    pub last_epoch: i64,
}

impl LrSchedule {
    pub(super) fn from_value(path: &Path, value: &Value) -> Result<Self, Error> {
        let at = |field: &str| Error::Entry {
            path: path.to_path_buf(),
            place: format!("lr_sched.{field}"),
            what: "is not LambdaLR's".into(),
        };
        let numbers = |field: &str| {
            let items = value.get(field).and_then(Value::as_items);
            items.and_then(|items| items.iter().map(Value::as_f64).collect::<Option<Vec<_>>>())
        };
        let base_lrs = numbers("base_lrs").ok_or_else(|| at("base_lrs"))?;
        let last_lr = numbers("_last_lr").unwrap_or_else(|| base_lrs.clone());
        let last_epoch = value.get("last_epoch").and_then(Value::as_i64).ok_or_else(|| at("last_epoch"))?;
        Ok(Self { base_lrs, last_lr, last_epoch })
    }

    /// What PyTorch 2.11's `LambdaLR.state_dict()` holds.
    pub fn to_value(&self) -> Value {
        let list = |numbers: &[f64]| numbers.iter().map(|number| Value::Float(*number)).collect::<Vec<_>>();
        let mut value = Dict::new();
        value.insert("base_lrs", list(&self.base_lrs));
        value.insert("last_epoch", self.last_epoch);
        value.insert("_step_count", self.last_epoch.saturating_add(1));
        value.insert("_is_initial", false);
        value.insert("_get_lr_called_within_step", false);
        value.insert("_last_lr", list(&self.last_lr));
        value.insert("lr_lambdas", self.base_lrs.iter().map(|_| Dict::new().into()).collect::<Vec<Value>>());
        value.into()
    }
}
