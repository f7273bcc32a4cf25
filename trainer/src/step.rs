//! One optimizer step. It never waits for the device: its numbers stay there until someone reads them.
use crate::stream::{self, Purpose};
use crate::{Error, Loss, Optimizer, Ranks, Result, Settings, StepInput, StepReport, Workload};
use model::{Checkpointing, Mode};
use tch::{Kind, Tensor};
use torch_ext::{Autocast, Span};

/// The most numbers that an objective may have besides the loss.
const MAX_VALUES: usize = 16;

/// The numbers of an optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// The loss.
    pub loss: f64,
    /// The objective's other numbers.
    pub values: Vec<f64>,
    /// What was computed, on all ranks.
    pub work: Workload,
    /// What the optimizer did.
    pub report: StepReport,
}

/// A step that was begun: its numbers are still on the device, perhaps not computed yet.
#[derive(Debug)]
pub struct PendingStep {
    /// What there is to compute, on all ranks.
    pub work: Workload,
    /// Whether a rank was told to stop when it began.
    pub(crate) stopped: bool,
    /// In float64: the norm, whether the step is skipped, the scale, the loss, and the objective's other numbers.
    numbers: Tensor,
    /// Whether this rank had a micro-batch of it: one without does not know how many other numbers there are.
    took_part: bool,
}

/// Begins one optimizer step over its micro-batches. Their weights add up: a character weighs the same in any of them.
///
/// `number` is the step's, and `distinct_seeds` that of [`crate::TrainState`].
pub fn begin_step<I>(
    settings: &Settings,
    optimizer: &mut Optimizer,
    step: StepInput<I>,
    (number, distinct_seeds): (u64, bool),
    stop: bool,
    loss: impl Fn(I, Mode) -> Result<Loss>,
) -> Result<PendingStep> {
    let ranks = &settings.ranks;
    let weight: i64 = step.iter().map(|batch| batch.weight).sum();
    let mut work = Workload::default();
    for batch in &step {
        work += batch.work;
    }
    // All that ranks exchange before a step, in one all-reduce.
    let totals = ranks.sum(&[weight as f64, work.patches, work.tokens, work.operations, f64::from(stop)])?;
    let weight = totals[0] as i64;
    let work = Workload { patches: totals[1], tokens: totals[2], operations: totals[3] };
    let (first, batches) = ((ranks.rank() * settings.accumulation_steps) as u64, step.len());
    let device = optimizer.device();
    // Leaving the outermost region frees the casts of the weights: with one around all micro-batches they are made once a
    // step. Activation checkpointing would then find casts that were made without gradients.
    let casts = match batches > 1 && !settings.activation_checkpointing {
        true => Some(Autocast::new(device, Kind::Float)?),
        false => None,
    };
    let mut total: Option<Tensor> = None;
    let mut values: Option<Tensor> = None;
    for (i, batch) in step.into_iter().enumerate() {
        let seed = stream::seed(settings.seed, Purpose::Dropout, [number, first + i as u64]) as i64;
        tch::manual_seed(seed);
        let autocast = settings.precision.kind();
        let how = Checkpointing { seed, autocast, distinct_seeds };
        let checkpointing = settings.activation_checkpointing.then_some(how);
        let region = (Span::new("forward"), Autocast::new(device, autocast)?);
        let loss = loss(batch.input, Mode { train: true, checkpointing })?;
        drop(region);
        let mean = loss.sum.f_div_scalar(weight)?;
        let backward = Span::new("backward");
        optimizer.backward(Some(&mean), i + 1 == batches)?;
        drop(backward);
        let mean = mean.f_detach()?;
        total = Some(total.map_or(Ok(mean.shallow_clone()), |sum| sum.f_add(&mean))?);
        if let Some(more) = loss.values {
            let more = more.f_detach()?.f_to_kind(Kind::Double)?.f_div_scalar(weight)?;
            values = Some(values.map_or(Ok(more.shallow_clone()), |sum| sum.f_add(&more))?);
        }
    }
    drop(casts);
    if batches == 0 {
        optimizer.backward(None, true)?;
    }
    let span = Span::new("optimizer");
    let report = optimizer.step()?;
    drop(span);
    let total = total.map_or_else(|| Tensor::f_zeros([], (Kind::Float, device)), Ok)?;
    let numbers = Tensor::f_stack(&[report.grad_norm, report.found_inf, report.scale, total], 0)?;
    let mut numbers = numbers.f_to_kind(Kind::Double)?;
    if let Some(values) = values {
        numbers = Tensor::f_cat(&[numbers, values], 0)?;
    }
    Ok(PendingStep { work, stopped: totals[4] > 0.0, numbers, took_part: batches > 0 })
}

/// Takes one optimizer step, and waits for its numbers.
pub fn run_step<I>(
    settings: &Settings,
    optimizer: &mut Optimizer,
    step: StepInput<I>,
    number: u64,
    loss: impl Fn(I, Mode) -> Result<Loss>,
) -> Result<StepResult> {
    let begun = begin_step(settings, optimizer, step, (number, true), false, loss)?;
    let done = finish_steps(&settings.ranks, &[begun])?.pop();
    done.ok_or_else(|| Error::Internal("a step without numbers".to_owned()))
}

/// Waits for the numbers of steps: one copy from the device, and one all-reduce.
pub fn finish_steps(ranks: &Ranks, steps: &[PendingStep]) -> Result<Vec<StepResult>> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<&Tensor> = steps.iter().map(|step| &step.numbers).collect();
    let all = Vec::<f64>::try_from(Tensor::f_cat(&all, 0)?)?;
    let mut rows = Vec::with_capacity(steps.len());
    let mut rest = &all[..];
    for step in steps {
        let (row, after) = rest.split_at(step.numbers.numel());
        rows.push(row);
        rest = after;
    }
    let summed = sums(ranks, steps, &rows)?;
    let done = steps.iter().zip(rows).zip(summed).map(|((step, row), (loss, values))| StepResult {
        loss,
        values,
        work: step.work,
        report: StepReport { grad_norm: row[0], skipped: row[1] != 0.0, scale: row[2] },
    });
    Ok(done.collect())
}

/// Adds up losses and other numbers over the ranks. The optimizer's numbers are the same on all of them.
fn sums(ranks: &Ranks, steps: &[PendingStep], rows: &[&[f64]]) -> Result<Vec<(f64, Vec<f64>)>> {
    if ranks.size() == 1 {
        return Ok(rows.iter().map(|row| (row[3], row[4..].to_vec())).collect());
    }
    let mut numbers = Vec::with_capacity(rows.len() * (3 + MAX_VALUES));
    for (step, row) in steps.iter().zip(rows) {
        let values = &row[4..];
        numbers.extend([row[3], f64::from(step.took_part), values.len() as f64]);
        numbers.extend((0..MAX_VALUES).map(|i| values.get(i).copied().unwrap_or(0.0)));
    }
    let numbers = ranks.sum(&numbers)?;
    let of = |row: &[f64]| (row[0], row[3..3 + (row[2] / row[1]) as usize].to_vec());
    Ok(numbers.chunks(3 + MAX_VALUES).map(of).collect())
}
