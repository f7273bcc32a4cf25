//! CLaMP-DPO: learning from pairs of which one piece was preferred (the original's `RL/train.py`; DPO-positive, Pal et
//! al. 2024, arXiv 2402.13228).
mod preferences;
mod reference;

use crate::event::Observer;
use crate::language::work;
use crate::objective::{Loss, MicroBatch, MicroBatchId, Objective, Split};
use crate::report::{Outcome, TrainReport};
use crate::settings::Settings;
use crate::{Error, Result};
use model::patches::{Patches, Patchiliser};
use model::{Architecture, Batch, Mode, NotaGen};
use reference::{Reference, log_probabilities, pieces_at_once};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

pub use preferences::Preferences;

/// A fall of the chosen pieces' log-probability that may be rounding alone, in nats a piece.
const ROUNDING: f64 = 0.1;

/// What pairs the network learns from, and how much.
#[derive(Debug, Clone, PartialEq)]
pub struct DpoParams {
    /// The original's preference file, `{"chosen": [paths], "rejected": [paths]}`.
    pub preferences: PathBuf,
    /// How strongly the policy is kept near the reference.
    pub beta: f64,
    /// The weight of a chosen piece being less likely than for the reference; 0 is plain DPO.
    pub lambda: f64,
    /// Whether the policy drops out while it learns. The reference never does, so that with dropout nearly every
    /// chosen piece looks less likely than for the reference, and lambda acts on noise.
    pub dropout: bool,
}

/// What a complete training gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DpoReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps skipped because a gradient was not finite.
    pub skipped: u64,
    /// Chosen pieces.
    pub chosen: usize,
    /// Rejected pieces.
    pub rejected: usize,
    /// Mean training loss.
    pub train_loss: f64,
    /// Mean loss over all pairs at the end, without dropout, of long pieces' beginnings. At the start it was ln 2.
    pub loss: f64,
    /// Portion of all pairs whose chosen piece's log-probability grew more than the rejected one's.
    pub accuracy: f64,
    /// Mean of beta times the difference of the gains: the margin of the implicit rewards.
    pub margin: f64,
    /// Portion of all pairs whose chosen piece is less likely than for the reference at the end: lambda acts on them.
    pub lambda_share: f64,
    /// Mean log-probability of the chosen pieces at the start, in nats.
    pub chosen_logp_start: f64,
    /// The same at the end.
    pub chosen_logp_end: f64,
    /// Mean log-probability of the rejected pieces at the start, in nats.
    pub rejected_logp_start: f64,
    /// The same at the end.
    pub rejected_logp_end: f64,
    /// Seconds of training, without those for the reference.
    pub seconds: f64,
    /// The weights at the end, alone, as the original saves them.
    pub best: PathBuf,
    /// The checkpoint at the end.
    pub last: PathBuf,
}

/// Trains `model` on pairs; see [`train()`](crate::train()). As it is given, it is the reference. Settings count in pairs and
/// steps.
///
/// The folder also gets `reference.json`. A piece that cannot be used is an error before the first step.
pub fn train(
    settings: &Settings,
    dpo: &DpoParams,
    model: &NotaGen,
    folder: &Path,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome<DpoReport>> {
    settings.check()?;
    let steps = dpo.check(settings)?;
    let a = model.architecture();
    let patchiliser = Patchiliser::new(a.patch_size as usize)?;
    let preferences = Preferences::read(&dpo.preferences, patchiliser, a.patch_length as usize)?;
    let Some(reference) = Reference::prepare(&preferences, settings, steps, model, folder, stop, observer)? else {
        return Ok(Outcome::Interrupted);
    };
    let objective = Arc::new(Dpo {
        preferences,
        reference,
        dpo: dpo.clone(),
        seed: settings.seed,
        step_size: settings.step_size(),
        steps,
        architecture: a.clone(),
    });
    match crate::train::train(settings, &objective, model, folder, stop, observer)? {
        Outcome::Finished(report) => objective.report(settings, model, report, stop),
        Outcome::Interrupted => Ok(Outcome::Interrupted),
    }
}

impl DpoParams {
    /// Refuses what cannot work, and gives the number of steps.
    fn check(&self, settings: &Settings) -> Result<u64> {
        let wrong = |message: &str| Err(Error::Config(message.to_owned()));
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return wrong("beta is not above 0");
        }
        if !(self.lambda.is_finite() && self.lambda >= 0.0) {
            return wrong("lambda is below 0");
        }
        match settings.steps {
            Some(steps) => Ok(steps),
            None => wrong("DPO is counted in steps, not in epochs: pairs are drawn, not gone through"),
        }
    }
}

/// Pairs of a micro-batch: chosen pieces first, each with the reference's log-probability.
pub struct Pairs {
    batch: Batch,
    /// (2 pairs) in float32.
    reference: Tensor,
}

/// The objective: pairs drawn anew for every step.
struct Dpo {
    preferences: Preferences,
    reference: Reference,
    dpo: DpoParams,
    seed: u64,
    step_size: usize,
    steps: u64,
    architecture: Architecture,
}

impl Objective for Dpo {
    type Network = NotaGen;
    type Input = Pairs;

    const VALUES: &'static [&'static str] = &[
        "accuracy",
        "margin",
        "chosen_logp",
        "rejected_logp",
        "chosen_change",
        "rejected_change",
        "kl",
        "lambda_share",
    ];
    const DRAWN: bool = true;
    const BEST_WITHOUT_OPTIMIZER: bool = true;

    fn examples(&self, split: Split) -> usize {
        match split {
            Split::Train => self.preferences.chosen() + self.preferences.rejected(),
            Split::Eval => 0,
        }
    }

    /// One epoch has all steps. An example is the index of a pair in its step.
    fn epoch(&self, _: u64) -> Vec<Vec<usize>> {
        vec![(0..self.step_size).collect(); self.steps as usize]
    }

    fn load(&self, id: MicroBatchId, indices: &[usize]) -> Result<MicroBatch<Pairs>> {
        let pairs = indices.iter().map(|&index| self.preferences.pair(self.seed, id.step, index));
        let (chosen, rejected): (Vec<Patches>, Vec<Patches>) =
            pairs.collect::<Result<Vec<_>>>()?.into_iter().map(|[chosen, rejected]| (chosen, rejected)).unzip();
        let pieces = [chosen, rejected].concat();
        let reference = pieces.iter().map(|piece| self.reference.of(piece)).collect::<Result<Vec<_>>>()?;
        let batch = Batch::new(&pieces, self.architecture.patch_length)?;
        let (weight, work) = (indices.len() as i64, work(&self.architecture, &batch));
        Ok(MicroBatch { input: Pairs { batch, reference: reference::tensor(&reference) }, weight, work })
    }

    fn tensors(pairs: &mut Pairs) -> Vec<&mut Tensor> {
        let mut tensors = pairs.batch.tensors_mut();
        tensors.push(&mut pairs.reference);
        tensors
    }

    fn loss(&self, network: &NotaGen, pairs: Pairs, mode: Mode) -> Result<Loss> {
        let mode = Mode { train: mode.train && self.dpo.dropout, ..mode };
        let policy = network.log_probability(&pairs.batch.to_device(network.device())?, mode)?;
        loss(&policy, &pairs.reference.f_to_device(network.device())?, self.dpo.beta, self.dpo.lambda)
    }

    fn warning(&self, values: &BTreeMap<String, f64>) -> Option<String> {
        fallen(*values.get("chosen_change")?)
    }
}

/// The failure to watch in DPO: both log-probabilities fall, the rejected one faster.
fn fallen(chosen_change: f64) -> Option<String> {
    (chosen_change < -ROUNDING).then(|| {
        let fall = -chosen_change;
        format!("the chosen pieces have become less likely than for the reference, by {fall:.2} nats a piece")
    })
}

/// DPO-positive over (2 pairs) log-probabilities, the chosen pieces' first: −log σ(β (Δ − λ max(0, ref⁺ − policy⁺))).
pub fn loss(policy: &Tensor, reference: &Tensor, beta: f64, lambda: f64) -> Result<Loss> {
    let pairs = policy.size()[0] / 2;
    let change = policy.f_sub(reference)?;
    let halves = |tensor: &Tensor| -> Result<(Tensor, Tensor)> {
        Ok((tensor.f_narrow(0, 0, pairs)?, tensor.f_narrow(0, pairs, pairs)?))
    };
    let (chosen, rejected) = halves(&change)?;
    let margin = chosen.f_sub(&rejected)?;
    let fall = chosen.f_neg()?.f_relu()?;
    let logits = margin.f_sub(&fall.f_mul_scalar(lambda)?)?.f_mul_scalar(beta)?;
    let sum = logits.f_log_sigmoid()?.f_sum(Kind::Float)?.f_neg()?;

    let (chosen_logp, rejected_logp) = halves(&policy.f_detach()?)?;
    let share = |is: Tensor| is.f_to_kind(Kind::Float);
    // Schulman's k1: the pieces are the reference's own samples, so the mean fall of their log-probability estimates
    // KL(reference ‖ policy). Estimators that exponentiate overflow on sums over thousands of characters.
    let kl = chosen.f_add(&rejected)?.f_mul_scalar(-0.5)?;
    let values = [
        share(margin.f_gt(0.0)?)?,
        margin.f_mul_scalar(beta)?,
        chosen_logp,
        rejected_logp,
        chosen.shallow_clone(),
        rejected,
        kl,
        share(chosen.f_lt(0.0)?)?,
    ];
    let values =
        values.iter().map(|value| value.f_detach()?.f_sum(Kind::Double)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Loss { sum, values: Some(Tensor::f_stack(&values, 0)?) })
}

impl Dpo {
    /// Compares the trained network with the reference, over all pairs.
    fn report(
        &self,
        settings: &Settings,
        model: &NotaGen,
        report: TrainReport,
        stop: &AtomicBool,
    ) -> Result<Outcome<DpoReport>> {
        let pieces = self.preferences.beginnings().collect::<Result<Vec<_>>>()?;
        let start = pieces.iter().map(|piece| self.reference.of(piece)).collect::<Result<Vec<_>>>()?;
        let mut end = Vec::with_capacity(pieces.len());
        for round in pieces.chunks(pieces_at_once(settings) * settings.ranks.size()) {
            if settings.ranks.any(stop.load(Ordering::Relaxed))? {
                return Ok(Outcome::Interrupted);
            }
            end.extend(settings.ranks.map_shards(round, |batch| log_probabilities(model, settings, batch))?);
        }
        let chosen = self.preferences.chosen();
        let gains: Vec<f64> = end.iter().zip(&start).map(|(end, start)| end - start).collect();
        let (gains_chosen, gains_rejected) = gains.split_at(chosen);
        let DpoParams { beta, lambda, .. } = self.dpo;
        let mean_over_pairs = |f: &dyn Fn(f64, f64) -> f64| {
            let sum: f64 = gains_chosen.iter().map(|&c| gains_rejected.iter().map(|&r| f(c, r)).sum::<f64>()).sum();
            sum / (gains_chosen.len() * gains_rejected.len()) as f64
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        Ok(Outcome::Finished(DpoReport {
            steps: report.steps,
            skipped: report.skipped,
            chosen,
            rejected: self.preferences.rejected(),
            train_loss: report.train_loss,
            loss: mean_over_pairs(&|c, r| softplus(-beta * (c - r - lambda * (-c).max(0.0)))),
            accuracy: mean_over_pairs(&|c, r| f64::from(c > r)),
            margin: mean_over_pairs(&|c, r| beta * (c - r)),
            lambda_share: mean_over_pairs(&|c, _| f64::from(c < 0.0)),
            chosen_logp_start: mean(&start[..chosen]),
            chosen_logp_end: mean(&end[..chosen]),
            rejected_logp_start: mean(&start[chosen..]),
            rejected_logp_end: mean(&end[chosen..]),
            seconds: report.seconds,
            best: report.best,
            last: report.last,
        }))
    }
}

/// log(1 + eˣ), which is −log σ(−x).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_pieces_that_become_less_likely_are_told() {
        assert!(fallen(-1.5).unwrap().ends_with("than for the reference, by 1.50 nats a piece"));
        assert_eq!((fallen(0.2), fallen(-0.01)), (None, None));
    }

    #[test]
    fn the_loss_of_a_report_is_that_of_training() {
        for logit in [-800.0, -3.0, 0.0, 2.0, 40.0] {
            let policy = Tensor::from_slice(&[logit, 0.0]);
            let of_training = loss(&policy, &Tensor::zeros_like(&policy), 1.0, 0.0).unwrap().sum.double_value(&[]);
            assert!((softplus(-logit) - of_training).abs() < 1e-6, "{logit}");
        }
    }
}
