//! The evaluation loss.
use crate::Result;
use crate::loader::Loader;
use crate::settings::Precision;
use model::{Mode, NotaGen};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};
use torch_ext::Autocast;

/// The mean loss over the characters of all pieces, in the training's precision. Nothing if told to stop.
pub(crate) fn evaluate(
    model: &NotaGen,
    pieces: Loader,
    precision: Precision,
    stop: &AtomicBool,
) -> Result<Option<f64>> {
    let _no_grad = tch::no_grad_guard();
    let mut sum = Tensor::f_zeros([], (Kind::Double, model.device()))?;
    let mut tokens = 0;
    for step in pieces {
        for batch in step? {
            let _autocast = Autocast::new(model.device(), precision.kind())?;
            let loss = model.loss(&batch.to_device(model.device())?, Mode::EVAL)?;
            sum = sum.f_add(&loss.sum.f_to_kind(Kind::Double)?)?;
            tokens += loss.tokens;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    Ok(Some(sum.f_double_value(&[])? / tokens as f64))
}
