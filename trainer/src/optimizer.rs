//! AdamW over a model's parameters, with PyTorch's defaults and a dynamic loss scale.
use crate::settings::Precision;
use crate::{Error, Result};
use model::NotaGen;
use tch::{Device, Kind, Tensor};
use torch_ext::{AdamWState, AdamWStep};

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;
/// `torch.amp.GradScaler`'s settings.
const GROWTH: (f64, f64, i64) = (2.0, 0.5, 2000);
const FIRST_SCALE: f64 = 65536.0;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Whether a gradient was not finite and nothing was changed.
    pub skipped: bool,
}

/// The optimizer with its loss scale.
pub struct Optimizer {
    /// Places in `model.parameters()` of those that are trained: PyTorch keeps no state for the rest.
    pub places: Vec<usize>,
    params: Vec<Tensor>,
    /// The moments, in the order of `places`.
    pub state: AdamWState,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    max_grad_norm: Option<f64>,
    scaler: Option<Scaler>,
}

/// Dynamic loss scaling.
struct Scaler {
    scale: Tensor,
    growth_tracker: Tensor,
    growth: (f64, f64, i64),
}

impl Optimizer {
    /// A fresh optimizer.
    pub fn new(model: &NotaGen, precision: Precision, weight_decay: f64, max_grad_norm: Option<f64>) -> Optimizer {
        let (places, params): (Vec<usize>, Vec<Tensor>) = model
            .parameters()
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| name != model::UNUSED_PARAMETER)
            .map(|(place, (_, tensor))| (place, tensor.shallow_clone()))
            .unzip();
        let state = AdamWState::new(&params);
        let mut optimizer = Optimizer { places, params, state, weight_decay, max_grad_norm, scaler: None };
        if precision == Precision::Fp16 {
            optimizer.set_scaler(model.device(), FIRST_SCALE, 0, GROWTH);
        }
        optimizer
    }

    fn set_scaler(&mut self, device: Device, scale: f64, tracker: i64, growth: (f64, f64, i64)) {
        let scale = Tensor::from(scale as f32).to_device(device);
        let growth_tracker = Tensor::from(tracker as i32).to_device(device);
        self.scaler = Some(Scaler { scale, growth_tracker, growth });
    }

    /// Replaces the first scale and the steps between its growths.
    pub fn with_scaling(mut self, device: Device, scale: f64, interval: i64) -> Optimizer {
        self.set_scaler(device, scale, 0, (GROWTH.0, GROWTH.1, interval));
        self
    }

    /// The loss scale and the finite steps since it grew; nothing without loss scaling.
    pub fn scale(&self) -> Option<(f64, i64)> {
        self.scaler.as_ref().map(|s| (s.scale.double_value(&[]), s.growth_tracker.int64_value(&[])))
    }

    /// Goes on with a loss scale.
    pub fn restore_scale(&mut self, scale: f64, tracker: i64) {
        if let Some(scaler) = &self.scaler {
            let (device, growth) = (scaler.scale.device(), scaler.growth);
            self.set_scaler(device, scale, tracker, growth);
        }
    }

    /// The loss to run backward from.
    pub fn scaled(&self, loss: &Tensor) -> Result<Tensor> {
        Ok(match &self.scaler {
            Some(scaler) => loss.f_mul(&scaler.scale)?,
            None => loss.shallow_clone(),
        })
    }

    /// Unscales, clips, steps and clears the gradients. A gradient that is not finite voids the step.
    pub fn step(&mut self, learning_rate: f64) -> Result<StepReport> {
        let grads: Vec<Tensor> = self.params.iter().map(Tensor::grad).collect();
        if grads.iter().any(|grad| !grad.defined()) {
            return Err(Error::Settings("a parameter has no gradient".to_owned()));
        }
        let mut found_inf = None;
        if let Some(scaler) = &self.scaler {
            let found = Tensor::f_zeros([], (Kind::Float, scaler.scale.device()))?;
            torch_ext::unscale(&grads, &found, &scaler.scale.f_reciprocal()?)?;
            found_inf = Some(found);
        }
        let norm = match self.max_grad_norm {
            Some(max) => torch_ext::clip_by_norm(&grads, max)?,
            None => torch_ext::total_norm(&grads)?,
        };
        let grad_norm = norm.f_double_value(&[])?;
        let skipped = !grad_norm.is_finite();
        if !skipped {
            let step = AdamWStep { lr: learning_rate, betas: BETAS, eps: EPS, weight_decay: self.weight_decay };
            torch_ext::fused_adamw(&self.params, &grads, &self.state, step, None)?;
        }
        if let (Some(s), Some(found)) = (&self.scaler, found_inf) {
            torch_ext::update_scale(&s.scale, &s.growth_tracker, &found, s.growth.0, s.growth.1, s.growth.2)?;
        }
        self.clear();
        Ok(StepReport { grad_norm, skipped })
    }

    /// Clears the gradients.
    pub fn clear(&mut self) {
        for param in &mut self.params {
            param.zero_grad();
        }
    }
}
