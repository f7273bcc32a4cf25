//! What a training step launches and how often it waits, counted on the CPU and held to a budget: a launch costs a GPU's host
//! some microseconds, and a wait costs it its lead.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{golden, network, parts, pieces, settings};
use model::{Batch, Mode};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use torch_ext::{Calls, count_calls};
use trainer::{
    Dtype, Loss, MicroBatch, Optimizer, Result, Settings, Trainable, Workload, begin_step, dpo, finish_steps, language,
    run_step,
};

type Counted = BTreeMap<String, Calls>;

/// Operators that wait until the device has a number.
const WAITS: [&str; 4] = ["aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero"];

/// Launches of a step besides those of the network's passes: of the optimizer without loss scaling, and with it.
const LAUNCHES: [usize; 2] = [30, 35];

fn all(calls: &Counted, names: &[&str]) -> usize {
    names.iter().filter_map(|name| calls.get(*name)).map(|calls| calls.all).sum()
}

/// Waits for a device. The CPU's AdamW asks for the learning rate and for the counter of each parameter, which a GPU's kernel
/// reads by itself.
fn waits(calls: &Counted, network: &impl Trainable) -> usize {
    let parameters = network.parameters().iter().filter(|(name, _)| network.uses(name)).count();
    all(calls, &WAITS) - (parameters + 1)
}

/// Calls that launch something: not views, and not what makes room.
fn launches(calls: &Counted) -> usize {
    let none = ["empty", "view", "detach", "select", "narrow", "slice", "as_strided", "unsqueeze", "alias", "resize_"];
    let launches = |name: &str| !none.iter().any(|view| name == format!("aten::{view}"));
    calls.iter().filter(|(name, _)| launches(name)).map(|(_, calls)| calls.outer).sum()
}

/// What the third step of a course calls: the first ones make gradients.
fn third_step<I>(
    settings: &Settings,
    network: &impl Trainable,
    step: impl Fn(usize) -> Vec<MicroBatch<I>>,
    loss: impl Fn(I, Mode) -> Result<Loss>,
) -> Counted {
    let mut optimizer = Optimizer::new(network, settings);
    for number in 0..2 {
        run_step(settings, &mut optimizer, step(number), number as u64, &loss).unwrap();
    }
    let third = step(2);
    let (begun, calls) =
        count_calls(|| begin_step(settings, &mut optimizer, third, (2, true), false, &loss).unwrap()).unwrap();
    assert!(finish_steps(&settings.ranks, &[begun]).unwrap()[0].loss.is_finite());
    calls
}

#[test]
fn no_step_waits_in_any_precision() {
    let (model, pieces) = (network(), pieces(&golden()));
    for precision in [Dtype::Fp32, Dtype::Bf16, Dtype::Fp16] {
        let settings = Settings { max_grad_norm: Some(1.0), accumulation_steps: 2, ..settings(precision) };
        let of = |batch, mode| language::loss(&model, batch, mode);
        let calls = third_step(&settings, &model, |step| parts(&pieces, step, 2), of);
        assert_eq!(waits(&calls, &model), 0, "{precision:?}: {calls:?}");
    }
}

#[test]
fn weights_are_cast_once_a_step() {
    let (model, pieces) = (network(), pieces(&golden()));
    let casts = |accumulation_steps| {
        let settings = Settings { accumulation_steps, ..settings(Dtype::Bf16) };
        let of = |batch, mode| language::loss(&model, batch, mode);
        all(&third_step(&settings, &model, |step| parts(&pieces, step, accumulation_steps), of), &["aten::_to_copy"])
    };
    let matrices = model.parameters().iter().filter(|(_, tensor)| tensor.dim() == 2).count();
    let (one, two) = (casts(1), casts(2));
    println!("{one} casts with one part, {two} with two, {matrices} matrices");
    assert!(two < 2 * one - matrices, "{one} casts with one part, {two} with two");
}

#[test]
fn no_step_of_a_preference_training_waits() {
    let (model, pieces) = (network(), pieces(&golden()));
    let step = |step: usize| {
        let batch = Batch::new(&[pieces[step].clone(), pieces[step + 1].clone()], 64).unwrap();
        let input = (batch, Tensor::from_slice(&[-60f32, -70.0]));
        vec![MicroBatch { input, weight: 1, work: Workload::default() }]
    };
    let loss = |(batch, reference): (Batch, Tensor), mode| {
        dpo::loss(&model.log_probability(&batch, mode)?, &reference, 0.1, 10.0)
    };
    let calls = third_step(&settings(Dtype::Fp32), &model, step, loss);
    assert_eq!(waits(&calls, &model), 0, "{calls:?}");
}

/// Many rows of weights.
struct Rows(Vec<(String, Tensor)>);

impl Trainable for Rows {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn parameters(&self) -> &[(String, Tensor)] {
        &self.0
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    fn load(&self, _: &mut dyn FnMut(&str) -> Result<Option<Tensor>>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn launches_of_a_step_do_not_grow_with_the_parameters() {
    let of = |rows: usize, precision| {
        let row = |i| (format!("row {i}"), Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true));
        let network = Rows((0..rows).map(row).collect());
        let loss = |(), _: Mode| {
            let rows: Vec<&Tensor> = network.0.iter().map(|(_, row)| row).collect();
            Ok(Loss { sum: Tensor::f_cat(&rows, 0)?.f_sum(Kind::Float)?, values: None })
        };
        let settings = Settings { max_grad_norm: Some(1.0), ..settings(precision) };
        let step = |_| vec![MicroBatch { input: (), weight: 1, work: Workload::default() }];
        third_step(&settings, &network, step, loss)
    };
    for (precision, budget) in [Dtype::Fp32, Dtype::Fp16].into_iter().zip(LAUNCHES) {
        let (few, many) = (of(1, precision), of(100, precision));
        // Of each further row: its way into and out of the sum.
        let passes = launches(&many) - launches(&few);
        println!("{precision:?}: {} launches with one row, {passes} more with a hundred", launches(&few));
        assert!(launches(&few) <= budget, "{precision:?}: {} launches: {few:?}", launches(&few));
        assert!(passes <= 99 * 2, "{precision:?}: {passes} more: {many:?}");
    }
}
