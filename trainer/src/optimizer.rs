//! AdamW over a model's parameters, with PyTorch's defaults and a dynamic loss scale.
use crate::shards::Shards;
use crate::{Dtype, Error, Ranks, Result, Settings, Trainable};
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use torch_ext::{AdamWState, AdamWStep, Reducer, ReducerOptions};

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
    /// The loss scale afterwards; 1 without loss scaling.
    pub scale: f64,
}

/// A [`StepReport`] whose numbers are on the device: float32 scalars, valid until the next step.
#[derive(Debug)]
pub(crate) struct PendingReport {
    pub(crate) grad_norm: Tensor,
    /// 1 where a gradient is not finite, and 0 else.
    pub(crate) found_inf: Tensor,
    pub(crate) scale: Tensor,
}

/// How the gradients of a step were exchanged between ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GradientExchange {
    /// Seconds of the backward pass, until the last gradient was there.
    pub backward: f64,
    /// Seconds from then until the last sum was there: for the exchange, and for ranks with longer pieces.
    pub waited: f64,
    /// Bucket by bucket, in the order in which their gradients were there.
    pub buckets: Vec<BucketExchange>,
}

/// A bucket of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BucketExchange {
    /// Bytes that travelled from each rank.
    pub bytes: i64,
    /// Seconds from the beginning of the backward pass until it was sent.
    pub ready: f64,
    /// Seconds until the sum over the ranks was there.
    pub reduced: f64,
}

impl From<&torch_ext::Bucket> for BucketExchange {
    fn from(bucket: &torch_ext::Bucket) -> BucketExchange {
        BucketExchange { bytes: bucket.bytes, ready: bucket.ready, reduced: bucket.reduced }
    }
}

/// The optimizer with its loss scale.
pub struct Optimizer {
    /// Indices in the network's `parameters()` of those that are trained: PyTorch keeps no state for the rest.
    pub indices: Vec<usize>,
    device: Device,
    params: Vec<Tensor>,
    /// The moments, in the order of `indices`; none where another rank keeps a parameter's.
    pub state: AdamWState,
    /// Where the moments are, if not beside the parameters.
    state_on: Option<Device>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    max_grad_norm: Option<f64>,
    scaler: Option<Scaler>,
    rates: Rates,
    one: Tensor,
    options: ReducerOptions,
    reducer: Option<Reducer>,
    shard: bool,
    shards: Option<Shards>,
}

/// Dynamic loss scaling.
struct Scaler {
    scale: Tensor,
    growth_tracker: Tensor,
    growth: (f64, f64, i64),
}

/// The learning rates of the steps to come, on the device: which is next depends on how many steps were skipped, which the
/// device alone knows in time.
struct Rates {
    /// One for each step that is not skipped; the last one stays.
    all: Tensor,
    /// (1): the index of the next, in int64.
    next: Tensor,
}

impl Rates {
    fn new(rates: &[f64], device: Device) -> Rates {
        // CUDA's kernel takes float32; the CPU's takes anything, and so loses nothing.
        let kind = if device == Device::Cpu { Kind::Double } else { Kind::Float };
        Rates {
            all: Tensor::from_slice(rates).to_kind(kind).to_device(device),
            next: Tensor::zeros([1], (Kind::Int64, device)),
        }
    }

    fn now(&self) -> Result<Tensor> {
        Ok(self.all.f_index_select(0, &self.next)?)
    }

    /// Goes to the next rate, unless the step was skipped.
    fn advance(&mut self, found_inf: &Tensor) -> Result<()> {
        let next = self.next.f_add_scalar(1)?.f_sub(&found_inf.f_to_kind(Kind::Int64)?)?;
        self.next = next.f_clamp_max(self.all.numel() as i64 - 1)?;
        Ok(())
    }
}

impl Optimizer {
    /// A fresh optimizer. Its learning rate is the settings' until [`Optimizer::set_learning_rates`].
    pub fn new(network: &impl Trainable, settings: &Settings) -> Optimizer {
        let (indices, params): (Vec<usize>, Vec<Tensor>) = network
            .parameters()
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| network.uses(name))
            .map(|(index, (_, tensor))| (index, tensor.shallow_clone()))
            .unzip();
        let state_on = settings.optimizer_offload.then_some(Device::Cpu);
        let state = AdamWState::new(&params, state_on);
        let (weight_decay, max_grad_norm) = (settings.weight_decay, settings.max_grad_norm);
        let mut optimizer = Optimizer {
            indices,
            device: network.device(),
            params,
            state,
            state_on,
            weight_decay,
            max_grad_norm,
            scaler: None,
            rates: Rates::new(&[settings.learning_rate], network.device()),
            one: Tensor::ones([], (Kind::Float, network.device())),
            options: ReducerOptions { compress: Some(settings.gradient_precision.kind()), ..ReducerOptions::default() },
            reducer: None,
            shard: settings.shard_optimizer,
            shards: None,
        };
        if settings.precision == Dtype::Fp16 {
            optimizer.set_scaler(FIRST_SCALE, 0, GROWTH);
        }
        optimizer
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    fn set_scaler(&mut self, scale: f64, tracker: i64, growth: (f64, f64, i64)) {
        let scale = Tensor::from(scale as f32).to_device(self.device);
        let growth_tracker = Tensor::from(tracker as i32).to_device(self.device);
        self.scaler = Some(Scaler { scale, growth_tracker, growth });
    }

    /// Sets the learning rates of the steps to come, from the next on. A skipped step leaves its rate to the one after it;
    /// after the last rate that one stays.
    pub fn set_learning_rates(&mut self, rates: &[f64]) {
        if !rates.is_empty() {
            self.rates = Rates::new(rates, self.device);
        }
    }

    /// Replaces the first scale and the steps between its growths.
    pub fn with_scaling(mut self, scale: f64, interval: i64) -> Optimizer {
        self.set_scaler(scale, 0, (GROWTH.0, GROWTH.1, interval));
        self
    }

    /// The loss scale and the finite steps since it grew; nothing without loss scaling.
    pub fn scale(&self) -> Option<(f64, i64)> {
        self.scaler.as_ref().map(|s| (s.scale.double_value(&[]), s.growth_tracker.int64_value(&[])))
    }

    /// Goes on with a loss scale.
    pub fn restore_scale(&mut self, scale: f64, tracker: i64) {
        if let Some(scaler) = &self.scaler {
            let growth = scaler.growth;
            self.set_scaler(scale, tracker, growth);
        }
    }

    /// The loss to run backward from.
    pub fn scaled(&self, loss: &Tensor) -> Result<Tensor> {
        Ok(match &self.scaler {
            Some(scaler) => loss.f_mul(&scaler.scale)?,
            None => loss.shallow_clone(),
        })
    }

    /// Joins the ranks: from here on gradients are sums over them. The moments and the loss scale of rank 0 are broadcast.
    pub fn join(&mut self, ranks: &Ranks) -> Result<()> {
        let Some(group) = ranks.group() else { return Ok(()) };
        self.shards = self.shard.then(|| Shards::new(&self.params, ranks));
        for param in 0..self.params.len() {
            ranks.broadcast(&self.state.of(param), 0)?;
            if self.shards.as_ref().is_some_and(|shards| !shards.is_mine(param)) {
                self.state.forget(param);
            }
        }
        let scale = self.scale().unwrap_or_default();
        let text = ranks.broadcast_text(&serde_json::to_string(&scale).unwrap_or_default())?;
        if let Ok((scale, tracker)) = serde_json::from_str(&text) {
            self.restore_scale(scale, tracker);
        }
        self.reducer = Some(Reducer::new(group, &self.params, self.options).map_err(Error::peer)?);
        Ok(())
    }

    /// Adds the gradients of a loss. With the step's `last` micro-batch they are exchanged while they are computed. A rank
    /// without a micro-batch gives no loss, and takes part with gradients of zero.
    pub fn backward(&self, loss: Option<&Tensor>, last: bool) -> Result<()> {
        let loss = match (loss, &self.reducer) {
            (Some(loss), _) => self.scaled(loss)?,
            (None, Some(reducer)) => reducer.nothing()?,
            (None, None) => return Ok(()),
        };
        let Some(reducer) = self.reducer.as_ref().filter(|_| last) else { return Ok(loss.f_backward()?) };
        reducer.backward(&loss).map_err(Error::peer)
    }

    /// How the gradients of the last step were exchanged; nothing with one rank.
    pub fn exchange(&self) -> Option<GradientExchange> {
        let buckets: Vec<BucketExchange> =
            self.reducer.as_ref()?.trace().ok()?.iter().map(BucketExchange::from).collect();
        // Libtorch's backward pass ends with the exchange: what it takes is the time to the last gradient.
        let last = |of: fn(&BucketExchange) -> f64| buckets.iter().map(of).fold(0.0, f64::max);
        let (backward, end) = (last(|bucket| bucket.ready), last(|bucket| bucket.reduced));
        Some(GradientExchange { backward, waited: end - backward, buckets })
    }

    /// Unscales, clips, steps and clears the gradients, without a wait. The step is skipped if a gradient is not finite.
    pub(crate) fn step(&mut self) -> Result<PendingReport> {
        let grads: Vec<Tensor> = self.params.iter().map(Tensor::grad).collect();
        if grads.iter().any(|grad| !grad.defined()) {
            return Err(Error::Internal("a parameter has no gradient".to_owned()));
        }
        let found_inf = Tensor::f_zeros([], (Kind::Float, self.device))?;
        if let Some(scaler) = &self.scaler {
            torch_ext::unscale(&grads, &found_inf, &scaler.scale.f_reciprocal()?)?;
        }
        let grad_norm = match self.max_grad_norm {
            Some(max) => torch_ext::clip_by_norm(&grads, max)?,
            None => torch_ext::total_norm(&grads)?,
        };
        // The norm times one: the kernel also sets `found_inf` where it is not finite, which the next kernels read.
        torch_ext::unscale(std::slice::from_ref(&grad_norm), &found_inf, &self.one)?;
        let lr = self.rates.now()?;
        let weight_decay = self.weight_decay;
        self.advance(&grads, AdamWStep { lr: &lr, betas: BETAS, eps: EPS, weight_decay, found_inf: &found_inf })?;
        self.rates.advance(&found_inf)?;
        let scale = match &self.scaler {
            Some(s) => {
                let (growth, backoff, interval) = s.growth;
                torch_ext::update_scale(&s.scale, &s.growth_tracker, &found_inf, growth, backoff, interval)?;
                s.scale.shallow_clone()
            }
            None => self.one.shallow_clone(),
        };
        // Gradients may be views into the buckets of the exchange: they are overwritten, not freed.
        torch_ext::zero(&grads)?;
        Ok(PendingReport { grad_norm, found_inf, scale })
    }

    fn advance(&self, grads: &[Tensor], step: AdamWStep) -> Result<()> {
        let Some(shards) = &self.shards else {
            return Ok(torch_ext::fused_adamw(&self.params, grads, &self.state, step)?);
        };
        let AdamWState { steps, exp_avgs, exp_avg_sqs } = &self.state;
        let [steps, exp_avgs, exp_avg_sqs] = [steps, exp_avgs, exp_avg_sqs].map(|all| shards.mine(all));
        let mine = AdamWState { steps, exp_avgs, exp_avg_sqs };
        torch_ext::fused_adamw(&shards.mine(&self.params), &shards.mine(grads), &mine, step)?;
        shards.broadcast(&self.params)
    }

    /// A parameter's step counter and moments, whichever rank keeps them. All ranks ask together.
    pub(crate) fn moments(&self, param: usize) -> Result<[Tensor; 3]> {
        let here = self.state.of(param);
        let Some(shards) = &self.shards else { return Ok(here) };
        let found = match shards.is_mine(param) {
            true => here,
            false => AdamWState::new(&self.params[param..=param], self.state_on).of(0),
        };
        shards.ranks().broadcast(&found, shards.owner(param))?;
        Ok(found)
    }
}
