//! The evaluation loss.
use crate::Result;
use crate::loader::{Loader, LoaderThreads};
use crate::objective::{Objective, Split, Trainable};
use crate::settings::Settings;
use model::Mode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};
use torch_ext::Autocast;

/// The mean loss over all evaluation examples, in the training's precision, each on one of the ranks. Without such
/// examples there is no loss; where a rank is told to stop there is nothing.
pub(crate) fn evaluate<O: Objective>(
    objective: &Arc<O>,
    network: &O::Network,
    settings: &Settings,
    threads: &LoaderThreads,
    stop: &AtomicBool,
) -> Result<Option<Option<f64>>> {
    if objective.examples(Split::Eval) == 0 {
        return Ok(Some(None));
    }
    let _no_grad = tch::no_grad_guard();
    let mut sum = Tensor::f_zeros([], (Kind::Double, network.device()))?;
    let (mut weight, mut stopped) = (0, false);
    for step in Loader::eval(threads, objective, &settings.ranks) {
        for mut part in step? {
            torch_ext::send(&mut O::tensors(&mut part.input), network.device())?;
            let _autocast = Autocast::new(network.device(), settings.precision.kind())?;
            let loss = objective.loss(network, part.input, Mode::EVAL)?;
            sum = sum.f_add(&loss.sum.f_to_kind(Kind::Double)?)?;
            weight += part.weight;
        }
        stopped = stop.load(Ordering::Relaxed);
        if stopped {
            break;
        }
    }
    let totals = settings.ranks.sum(&[sum.f_double_value(&[])?, weight as f64, f64::from(stopped)])?;
    Ok((totals[2] == 0.0).then_some(Some(totals[0] / totals[1])))
}
