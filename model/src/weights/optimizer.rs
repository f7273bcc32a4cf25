//! AdamW's state, as PyTorch's `optimizer.state_dict()` keeps it.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use tch::Tensor;

use super::Error;
use crate::pth::{Dict, TensorValue, Value};

/// The state of an AdamW over parameters numbered as in PyTorch's `model.parameters()`.
#[derive(Debug, Clone, Default)]
pub struct OptimizerState {
    /// By the parameter's number. A parameter that never had a gradient has none: in NotaGen that is
    /// number 2, the patch-level decoder's unused `wte`.
    pub moments: BTreeMap<usize, Moments>,
    /// The groups of parameters with their settings.
    pub groups: Vec<ParamGroup>,
}

/// What AdamW knows of one parameter.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Updates so far.
    pub step: f64,
    /// Running mean of the gradient, in the parameter's shape.
    pub exp_avg: TensorValue,
    /// Running mean of its square, in the parameter's shape.
    pub exp_avg_sq: TensorValue,
}

/// Parameters with the same settings.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamGroup {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the two running means.
    pub betas: (f64, f64),
    /// What keeps the division from zero.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The learning rate that a schedule started from, where one was attached.
    pub initial_lr: Option<f64>,
    /// Numbers of the parameters.
    pub params: Vec<usize>,
}

impl ParamGroup {
    /// PyTorch's defaults for `AdamW(parameters, lr)` over `count` parameters.
    pub fn new(lr: f64, count: usize) -> Self {
        let params = (0..count).collect();
        Self { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, initial_lr: None, params }
    }
}

impl OptimizerState {
    /// Reads what PyTorch wrote; steps may be tensors, or whole numbers as before PyTorch 1.12.
    pub(super) fn from_value(path: &Path, value: &Value) -> Result<Self, Error> {
        let at =
            |place: &str, what: &str| Error::Entry { path: path.to_path_buf(), place: place.into(), what: what.into() };
        let state = value.get("state").and_then(Value::as_dict);
        let state = state.ok_or_else(|| at("optimizer.state", "is not a dict"))?;
        let mut moments = BTreeMap::new();
        for (key, value) in state.iter() {
            let label = key.as_i64().map_or_else(|| format!("{key:?}"), |number| number.to_string());
            let place = |field: &str| format!("optimizer.state[{label}]{field}");
            let number = key.as_i64().and_then(|key| usize::try_from(key).ok());
            let number = number.ok_or_else(|| at(&place(""), "is not numbered"))?;
            if value.get("max_exp_avg_sq").is_some() {
                return Err(at(&place(".max_exp_avg_sq"), "is AMSGrad's, which the original does not use"));
            }
            let tensor = |field: &str| {
                let tensor = value.get(field).and_then(Value::as_tensor).cloned();
                tensor.ok_or_else(|| at(&place(&format!(".{field}")), "is not a tensor"))
            };
            let step = match value.get("step") {
                Some(Value::Tensor(step)) => step.scalar()?,
                Some(step) => step.as_f64().unwrap_or(f64::NAN),
                None => f64::NAN,
            };
            if !(step.is_finite() && step >= 0.0) {
                return Err(at(&place(".step"), "is not a number of steps"));
            }
            moments.insert(number, Moments { step, exp_avg: tensor("exp_avg")?, exp_avg_sq: tensor("exp_avg_sq")? });
        }
        let groups = value.get("param_groups").and_then(Value::as_items);
        let groups = groups.ok_or_else(|| at("optimizer.param_groups", "is not a list"))?;
        let groups = groups.iter().enumerate().map(|(number, group)| {
            read_group(group)
                .map_err(|field| at(&format!("optimizer.param_groups[{number}].{field}"), "is not AdamW's"))
        });
        let state = Self { moments, groups: groups.collect::<Result<_, _>>()? };
        let numbered: HashSet<_> = state.groups.iter().flat_map(|group| &group.params).collect();
        match state.moments.keys().find(|number| !numbered.contains(number)) {
            Some(number) => Err(at(&format!("optimizer.state[{number}]"), "belongs to no group of parameters")),
            None => Ok(state),
        }
    }

    /// Refuses a state that is not of a network with these parameters, in the order of PyTorch's
    /// `model.parameters()`: other numbers of them, other shapes.
    pub fn check(&self, path: &Path, parameters: &[(String, Vec<i64>)]) -> Result<(), Error> {
        let count: usize = self.groups.iter().map(|group| group.params.len()).sum();
        if count != parameters.len() {
            let what = format!("has {count} parameters, the network has {}", parameters.len());
            let place = "optimizer.param_groups".into();
            return Err(Error::Entry { path: path.to_path_buf(), place, what });
        }
        for (number, moments) in &self.moments {
            let Some((name, expected)) = parameters.get(*number) else {
                let (place, what) = (format!("optimizer.state[{number}]"), "is of no parameter".into());
                return Err(Error::Entry { path: path.to_path_buf(), place, what });
            };
            for (field, tensor) in [("exp_avg", &moments.exp_avg), ("exp_avg_sq", &moments.exp_avg_sq)] {
                let found = tensor.shape();
                if found != *expected {
                    let key = format!("optimizer.state[{number}].{field} of {name}");
                    return Err(Error::Shape { path: path.to_path_buf(), key, found, expected: expected.clone() });
                }
            }
        }
        Ok(())
    }

    /// What PyTorch 2.11's `AdamW.state_dict()` holds.
    pub fn to_value(&self) -> Value {
        let mut state = Dict::new();
        for (number, moments) in &self.moments {
            let mut entry = Dict::new();
            entry.insert("step", Tensor::from(moments.step as f32));
            entry.insert("exp_avg", moments.exp_avg.clone());
            entry.insert("exp_avg_sq", moments.exp_avg_sq.clone());
            state.insert(*number as i64, entry);
        }
        let mut value = Dict::new();
        value.insert("state", state);
        value.insert("param_groups", self.groups.iter().map(write_group).collect::<Vec<_>>());
        value.into()
    }
}

fn read_group(group: &Value) -> Result<ParamGroup, &'static str> {
    let number = |field: &'static str| match group.get(field) {
        Some(Value::Tensor(tensor)) => tensor.scalar().map_err(|_| field),
        Some(value) => value.as_f64().ok_or(field),
        None => Err(field),
    };
    let betas = match group.get("betas").and_then(Value::as_items) {
        Some([first, second]) => first.as_f64().zip(second.as_f64()).ok_or("betas")?,
        _ => return Err("betas"),
    };
    if group.get("amsgrad").and_then(Value::as_bool) == Some(true) {
        return Err("amsgrad");
    }
    if group.get("maximize").and_then(Value::as_bool) == Some(true) {
        return Err("maximize");
    }
    let params = group.get("params").and_then(Value::as_items).ok_or("params")?;
    let index = |value: &Value| value.as_i64().and_then(|number| usize::try_from(number).ok());
    Ok(ParamGroup {
        lr: number("lr")?,
        betas,
        eps: number("eps")?,
        weight_decay: number("weight_decay")?,
        initial_lr: group.get("initial_lr").and_then(Value::as_f64),
        params: params.iter().map(index).collect::<Option<_>>().ok_or("params")?,
    })
}

fn write_group(group: &ParamGroup) -> Value {
    let mut value = Dict::new();
    value.insert("lr", group.lr);
    value.insert("betas", Value::Tuple(vec![group.betas.0.into(), group.betas.1.into()]));
    value.insert("eps", group.eps);
    value.insert("weight_decay", group.weight_decay);
    value.insert("amsgrad", false);
    value.insert("maximize", false);
    value.insert("foreach", Value::None);
    value.insert("capturable", false);
    value.insert("differentiable", false);
    value.insert("fused", Value::None);
    value.insert("decoupled_weight_decay", true);
    if let Some(initial) = group.initial_lr {
        value.insert("initial_lr", initial);
    }
    value.insert("params", group.params.iter().map(|number| Value::Int(*number as i64)).collect::<Vec<_>>());
    value.into()
}
