//! One optimizer step, which never waits for the device: its numbers stay there until they are asked for.
use crate::loader::Step;
use crate::objective::{Loss, Work};
use crate::optimizer::{Optimizer, StepReport};
use crate::ranks::Ranks;
use crate::settings::Settings;
use crate::stream::{self, Purpose};
use crate::{Error, Result};
use model::{Checkpointing, Mode};
use tch::{Kind, Tensor};
use torch_ext::{Autocast, Span};

/// Numbers that an objective has besides the loss, at most.
const MOST_VALUES: usize = 16;

/// What one optimizer step came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The loss.
    pub loss: f64,
    /// The objective's other numbers.
    pub values: Vec<f64>,
    /// What it took, on all ranks.
    pub work: Work,
    /// What the optimizer did.
    pub report: StepReport,
}

/// A step whose numbers are still on the device, perhaps not computed yet.
#[derive(Debug)]
pub struct Begun {
    /// What it takes, on all ranks.
    pub work: Work,
    /// Whether a rank was told to stop when it began.
    pub(crate) stopped: bool,
    /// In float64: the norm, whether the step is void, the scale, the loss, and the objective's other numbers.
    numbers: Tensor,
    /// Whether this rank had a part of it: one without does not know how many other numbers there are.
    took_part: bool,
}

/// Begins one optimizer step over its parts, whose weights add up: characters weigh the same in whatever part they are.
///
/// `number` is the step's, and `distinct_seeds` that of [`crate::Position`].
pub fn begin_step<I>(
    settings: &Settings,
    optimizer: &mut Optimizer,
    step: Step<I>,
    (number, distinct_seeds): (u64, bool),
    stop: bool,
    loss: impl Fn(I, Mode) -> Result<Loss>,
) -> Result<Begun> {
    let ranks = &settings.ranks;
    let weight: i64 = step.iter().map(|part| part.weight).sum();
    let mut work = Work::default();
    for part in &step {
        work += part.work;
    }
    // All that ranks tell each other before a step, in one exchange.
    let totals = ranks.sum(&[weight as f64, work.patches, work.tokens, work.operations, f64::from(stop)])?;
    let weight = totals[0] as i64;
    let work = Work { patches: totals[1], tokens: totals[2], operations: totals[3] };
    let (first_part, parts) = ((ranks.rank() * settings.accumulation_steps) as u64, step.len());
    let device = optimizer.device();
    // Leaving the last region drops the casts of the weights: with one around all parts they are made once a step. Blocks
    // that are computed again would find those that were made without gradients.
    let casts = match parts > 1 && !settings.activation_checkpointing {
        true => Some(Autocast::new(device, Kind::Float)?),
        false => None,
    };
    let mut total: Option<Tensor> = None;
    let mut values: Option<Tensor> = None;
    for (number_of_part, part) in step.into_iter().enumerate() {
        let seed = stream::seed(settings.seed, Purpose::Dropout, [number, first_part + number_of_part as u64]) as i64;
        tch::manual_seed(seed);
        let autocast = settings.precision.kind();
        let how = Checkpointing { seed, autocast, distinct_seeds };
        let checkpointing = settings.activation_checkpointing.then_some(how);
        let region = (Span::new("forward"), Autocast::new(device, autocast)?);
        let loss = loss(part.input, Mode { train: true, checkpointing })?;
        drop(region);
        let mean = loss.sum.f_div_scalar(weight)?;
        let backward = Span::new("backward");
        optimizer.backward(Some(&mean), number_of_part + 1 == parts)?;
        drop(backward);
        let mean = mean.f_detach()?;
        total = Some(total.map_or(Ok(mean.shallow_clone()), |sum| sum.f_add(&mean))?);
        if let Some(more) = loss.values {
            let more = more.f_detach()?.f_to_kind(Kind::Double)?.f_div_scalar(weight)?;
            values = Some(values.map_or(Ok(more.shallow_clone()), |sum| sum.f_add(&more))?);
        }
    }
    drop(casts);
    if parts == 0 {
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
    Ok(Begun { work, stopped: totals[4] > 0.0, numbers, took_part: parts > 0 })
}

/// Takes one optimizer step, and waits for it.
pub fn run_step<I>(
    settings: &Settings,
    optimizer: &mut Optimizer,
    step: Step<I>,
    number: u64,
    loss: impl Fn(I, Mode) -> Result<Loss>,
) -> Result<Done> {
    let begun = begin_step(settings, optimizer, step, (number, true), false, loss)?;
    let done = finish_steps(&settings.ranks, &[begun])?.pop();
    done.ok_or_else(|| Error::Settings("a step without numbers".to_owned()))
}

/// What steps came to, in one copy from the device and one exchange between the ranks.
pub fn finish_steps(ranks: &Ranks, steps: &[Begun]) -> Result<Vec<Done>> {
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
    let done = steps.iter().zip(rows).zip(summed).map(|((step, row), (loss, values))| Done {
        loss,
        values,
        work: step.work,
        report: StepReport { grad_norm: row[0], skipped: row[1] != 0.0, scale: row[2] },
    });
    Ok(done.collect())
}

/// Adds up what the ranks found: losses and other numbers. The optimizer's numbers are those of all of them.
fn sums(ranks: &Ranks, steps: &[Begun], rows: &[&[f64]]) -> Result<Vec<(f64, Vec<f64>)>> {
    if ranks.size() == 1 {
        return Ok(rows.iter().map(|row| (row[3], row[4..].to_vec())).collect());
    }
    let mut numbers = Vec::with_capacity(rows.len() * (3 + MOST_VALUES));
    for (step, row) in steps.iter().zip(rows) {
        let values = &row[4..];
        numbers.extend([row[3], f64::from(step.took_part), values.len() as f64]);
        numbers.extend((0..MOST_VALUES).map(|i| values.get(i).copied().unwrap_or(0.0)));
    }
    let numbers = ranks.sum(&numbers)?;
    let of = |row: &[f64]| (row[0], row[3..3 + (row[2] / row[1]) as usize].to_vec());
    Ok(numbers.chunks(3 + MOST_VALUES).map(of).collect())
}
