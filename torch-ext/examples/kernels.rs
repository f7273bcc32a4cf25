//! Times our own kernels and libtorch's path on a card, and compares what they give.
//!
//!     cargo run --release -p torch-ext --example kernels -- --device cuda
//!
//! Prints a line of JSON for each case: milliseconds (of short attention forward and backward, without the sum that stands for a
//! loss), the share of the card's memory bandwidth that `--bandwidth` gives in TB/s (3.35, an H100's), and the largest difference
//! over the largest number (of draws the share that differs). Sizes are those of NotaGen-large. Takes under 20 s.
mod common;

use common::{Arguments, Outcome};
use std::process::ExitCode;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use torch_ext::kernels::{self, DrawSettings, HEAD_SIZE, Kernel};

const HEADS: i64 = 20;
const HIDDEN: i64 = HEADS * HEAD_SIZE;
/// Calls in a recording: one alone would cost less than its launch.
const RECORDED: usize = 16;

fn main() -> ExitCode {
    common::run("kernels", measure)
}

#[derive(Clone, Copy)]
enum Case {
    /// `sequences` of `longest` characters each, or of 1 to `longest`.
    Short { sequences: i64, longest: i64, mixed: bool, dropout: f64 },
    /// `rows` with `position` keys behind them, in a cache for `capacity`.
    Append { rows: i64, position: i64, capacity: i64 },
    /// `rows` of logits.
    Draw { rows: i64 },
    /// `rows` of a residual stream.
    Norm { rows: i64 },
    /// The same with its derivative.
    Slope { rows: i64 },
}

/// What one way gave.
struct Given {
    milliseconds: f64,
    results: Vec<Tensor>,
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    let device = arguments.device("cuda")?;
    let bandwidth: f64 = arguments.number("--bandwidth", "3.35")?;
    let Device::Cuda(index) = device else { return Err("there is nothing to time without a card".into()) };
    println!("{{\"card\": \"{}\"}}", torch_ext::card(index)?.name);
    let short = |sequences, longest, mixed, dropout| Case::Short { sequences, longest, mixed, dropout };
    let append = |rows, position, capacity| Case::Append { rows, position, capacity };
    let cases = [
        (short(4096, 16, false, 0.0), Kind::BFloat16),
        (short(4096, 16, false, 0.1), Kind::BFloat16),
        (short(4096, 16, true, 0.0), Kind::BFloat16),
        (short(1024, 16, false, 0.0), Kind::Half),
        (short(1024, 17, false, 0.0), Kind::BFloat16),
        (append(128, 512, 1024), Kind::Half),
        (append(512, 512, 640), Kind::Half),
        (append(1, 1000, 1024), Kind::Half),
        (append(128, 15, 17), Kind::Half),
        (append(1024, 15, 17), Kind::Half),
        (Case::Draw { rows: 128 }, Kind::Half),
        (Case::Draw { rows: 1024 }, Kind::Float),
        (Case::Norm { rows: 128 }, Kind::Half),
        (Case::Norm { rows: 1024 }, Kind::Half),
        (Case::Slope { rows: 4096 }, Kind::BFloat16),
        (Case::Slope { rows: 65536 }, Kind::BFloat16),
    ];
    // Before they are asked for, libtorch's path is used.
    let theirs: Vec<Outcome<Given>> = cases.iter().map(|(case, kind)| run(case, *kind, device)).collect();
    let mut right = true;
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float] {
        let start = Instant::now();
        for warning in kernels::ready(device, kind)? {
            eprintln!("kernels: {warning}");
            right = false;
        }
        let own: Vec<String> = Kernel::ALL
            .iter()
            .filter(|&&kernel| kernels::is_own(kernel, device, kind))
            .map(|kernel| format!("\"{kernel}\""))
            .collect();
        let took = start.elapsed().as_secs_f64() * 1e3;
        println!("{{\"kind\": \"{kind:?}\", \"check_ms\": {took:.1}, \"own\": [{}]}}", own.join(", "));
    }
    for ((case, kind), theirs) in cases.iter().zip(theirs) {
        let what = format!("\"case\": \"{}\", \"kind\": \"{kind:?}\"", case.name());
        let own = kernels::is_own(case.kernel(), device, *kind);
        match (run(case, *kind, device), theirs) {
            (Ok(ours), Ok(theirs)) => {
                let difference = case.difference(&ours.results, &theirs.results);
                right &= own && difference.is_none_or(|by| by < 2e-2);
                let floor = case.bytes(*kind) / bandwidth / 1e9;
                println!(
                    "{{{what}, \"own\": {own}, \"ms\": {:.4}, \"libtorch_ms\": {:.4}, \"times\": {:.2}, \"floor_ms\": {floor:.4}, \
                     \"of_bandwidth\": {:.3}, \"difference\": {}}}",
                    ours.milliseconds,
                    theirs.milliseconds,
                    theirs.milliseconds / ours.milliseconds,
                    floor / ours.milliseconds,
                    difference.map_or("null".to_owned(), |by| format!("{by:.1e}")),
                );
            }
            (ours, theirs) => {
                right = false;
                let [ours, theirs] = [ours, theirs].map(|way| way.err().map_or("ran".to_owned(), |e| e.to_string()));
                println!("{{{what}, \"own\": {own}, \"ours\": {ours:?}, \"libtorch\": {theirs:?}}}");
            }
        }
    }
    if right { Ok(()) } else { Err("a kernel is not used or wrong".into()) }
}

impl Case {
    fn name(&self) -> String {
        match self {
            Case::Short { sequences, longest, mixed, dropout } => {
                let upto = if *mixed { "1 to " } else { "" };
                format!("short attention, {sequences} of {upto}{longest}, dropout {dropout}")
            }
            Case::Append { rows, position, .. } => format!("new tokens, {rows} behind {position}"),
            Case::Draw { rows } => format!("draw {rows}"),
            Case::Norm { rows } => format!("residual sum and norm, {rows}"),
            Case::Slope { rows } => format!("residual sum and norm with derivative, {rows}"),
        }
    }

    fn kernel(&self) -> Kernel {
        match self {
            Case::Short { .. } => Kernel::ShortAttention,
            Case::Append { .. } => Kernel::AppendAttend,
            Case::Draw { .. } => Kernel::Draw,
            Case::Norm { .. } => Kernel::NormStep,
            Case::Slope { .. } => Kernel::AddNorm,
        }
    }

    fn lengths(&self) -> Vec<i64> {
        match self {
            Case::Short { sequences, longest, mixed: true, .. } => {
                (0..*sequences).map(|i| i * 7 % longest + 1).collect()
            }
            Case::Short { sequences, longest, .. } => vec![*longest; *sequences as usize],
            _ => Vec::new(),
        }
    }

    /// What has to be read and written.
    fn bytes(&self, kind: Kind) -> f64 {
        let size = kind.elt_size_in_bytes() as i64;
        let bytes = match self {
            // qkv and the result; then qkv and two gradients.
            Case::Short { .. } => self.lengths().iter().sum::<i64>() * HIDDEN * (4 + 7) * size,
            Case::Append { rows, position, .. } => rows * HIDDEN * (2 * position + 6) * size,
            Case::Draw { rows } => rows * (128 * size + 12 + 4 + 16),
            Case::Norm { rows } => rows * HIDDEN * (8 + 2 * size),
            Case::Slope { rows } => rows * HIDDEN * (8 + 2 * size + 12 + 2 * size),
        };
        bytes as f64
    }

    fn difference(&self, ours: &[Tensor], theirs: &[Tensor]) -> Option<f64> {
        match self {
            Case::Short { dropout, .. } if *dropout > 0.0 => None,
            Case::Draw { .. } => {
                Some(ours[0].ne_tensor(&theirs[0]).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
            }
            _ => ours
                .iter()
                .zip(theirs)
                .map(|(ours, theirs)| {
                    let [ours, theirs] = [ours, theirs].map(|t| t.to_kind(Kind::Float));
                    (&ours - &theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[])
                })
                .reduce(|a, b| if a > b || a.is_nan() { a } else { b }),
        }
    }
}

fn run(case: &Case, kind: Kind, device: Device) -> Outcome<Given> {
    tch::manual_seed(7);
    let normal =
        |shape: &[i64]| -> Outcome<Tensor> { Ok(Tensor::f_randn(shape, (Kind::Float, device))?.f_to_kind(kind)?) };
    match *case {
        Case::Short { longest, dropout, .. } => {
            let lengths = case.lengths();
            let starts: Vec<i32> = std::iter::once(0)
                .chain(lengths.iter().scan(0, |sum, n| {
                    *sum += *n as i32;
                    Some(*sum)
                }))
                .collect();
            let starts = Tensor::f_from_slice(&starts)?.f_to_device(device)?;
            let tokens = lengths.iter().sum();
            let qkv = normal(&[tokens, 3 * HIDDEN])?.f_set_requires_grad(true)?;
            let slopes = normal(&[tokens, HIDDEN])?;
            let once = |attend: bool| -> Outcome<Vec<Tensor>> {
                let out = match attend {
                    true => kernels::short_attention(&qkv, &starts, HEADS, longest, dropout, true)?,
                    false => qkv.f_narrow(1, 0, HIDDEN)?,
                };
                // The product's derivative is what comes back, in the layout that it has in a network.
                let loss = out.f_mul(&slopes)?.f_sum(Kind::Float)?;
                let leaf = if attend { &qkv } else { &out };
                let grad = Tensor::f_run_backward(&[loss], &[leaf], false, false)?.remove(0);
                Ok(vec![out.f_detach()?, grad])
            };
            let (with, results) = timed(index(device), &|| once(true))?;
            let (without, _) = timed(index(device), &|| once(false))?;
            Ok(Given { milliseconds: with - without, results })
        }
        Case::Append { rows, position, capacity } => {
            let _no_grad = tch::no_grad_guard();
            let qkv = normal(&[rows, 3 * HIDDEN])?;
            let (keys, values) =
                (normal(&[rows, HEADS, capacity, HEAD_SIZE])?, normal(&[rows, HEADS, capacity, HEAD_SIZE])?);
            let positions = Tensor::f_full([rows], position, (Kind::Int64, device))?;
            let out = Tensor::f_zeros([rows, HIDDEN], (kind, device))?;
            recorded(device, &[&qkv, &keys, &values, &positions], out, || {
                kernels::append_attend(&qkv, &keys, &values, &positions)
            })
        }
        Case::Norm { rows } => {
            let _no_grad = tch::no_grad_guard();
            let x = Tensor::f_zeros([rows, HIDDEN], (Kind::Float, device))?;
            let delta = normal(&[rows, HIDDEN])?;
            let [weight, bias] = [1.0, 0.1].map(|n| Tensor::f_full([HIDDEN], n, (Kind::Float, device)));
            let (weight, bias, out) = (weight?, bias?, delta.f_empty_like()?);
            recorded(device, &[&x, &delta, &weight, &bias], out, || {
                kernels::norm_step(&x, Some(&delta), &weight, &bias, 1e-5, kind)
            })
        }
        Case::Slope { rows } => {
            let leaf = |t: Tensor| -> Outcome<Tensor> { Ok(t.f_set_requires_grad(true)?) };
            let x = leaf(Tensor::f_randn([rows, HIDDEN], (Kind::Float, device))?)?;
            let delta = leaf(normal(&[rows, HIDDEN])?)?;
            let [weight, bias] = [1.0, 0.1].map(|n| Tensor::f_full([HIDDEN], n, (Kind::Float, device)));
            let (weight, bias) = (leaf(weight?)?, leaf(bias?)?);
            let slopes = [Tensor::f_randn([rows, HIDDEN], (Kind::Float, device))?, normal(&[rows, HIDDEN])?];
            let once = |norms: bool| -> Outcome<Vec<Tensor>> {
                let (sum, norm) = match norms {
                    true => kernels::add_norm(&x, &delta, &weight, &bias, 1e-5)?,
                    false => (x.f_mul_scalar(1)?, delta.f_mul_scalar(1)?),
                };
                let norm = norm.f_to_kind(kind)?;
                let loss = sum.f_mul(&slopes[0])?.f_sum(Kind::Float)?;
                let loss = loss.f_add(&norm.f_mul(&slopes[1])?.f_sum(Kind::Float)?)?;
                let leaves: &[&Tensor] = if norms { &[&x, &delta, &weight, &bias] } else { &[&x, &delta] };
                let mut all = vec![sum.f_detach()?, norm.f_detach()?];
                all.extend(Tensor::f_run_backward(&[loss], leaves, false, false)?);
                Ok(all)
            };
            let (with, results) = timed(index(device), &|| once(true))?;
            let (without, _) = timed(index(device), &|| once(false))?;
            Ok(Given { milliseconds: with - without, results })
        }
        Case::Draw { rows } => {
            let _no_grad = tch::no_grad_guard();
            let logits = (normal(&[rows, 128])? * 4.0).f_to_kind(kind)?;
            let uniform = Tensor::f_rand([rows], (Kind::Float, device))?;
            let settings =
                Tensor::f_from_slice(&kernels::draw_row(9, 0.9, 1.2))?.f_repeat([rows])?.f_view([rows, 3])?;
            let settings = settings.f_to_device(device)?;
            let fixed = Tensor::f_full([rows], -1, (Kind::Int64, device))?;
            let out = fixed.f_empty_like()?;
            recorded(device, &[&logits, &uniform, &settings, &fixed], out, || {
                kernels::draw(&logits, &uniform, &DrawSettings::new(&settings, kind)?, &fixed)
            })
        }
    }
}

fn index(device: Device) -> i64 {
    match device {
        Device::Cuda(index) => index as i64,
        _ => 0,
    }
}

/// Milliseconds of one call, and what the last gave.
fn timed(card: i64, work: &dyn Fn() -> Outcome<Vec<Tensor>>) -> Outcome<(f64, Vec<Tensor>)> {
    for _ in 0..3 {
        work()?;
    }
    tch::Cuda::synchronize(card);
    const TIMES: usize = 20;
    let start = Instant::now();
    for _ in 1..TIMES {
        work()?;
    }
    let results = work()?;
    tch::Cuda::synchronize(card);
    Ok((start.elapsed().as_secs_f64() * 1e3 / TIMES as f64, results))
}

/// Work that is recorded and replayed, as generation has it, with what it reads and where its result goes.
fn recorded(
    device: Device,
    reads: &[&Tensor],
    out: Tensor,
    work: impl Fn() -> torch_ext::Result<Tensor>,
) -> Outcome<Given> {
    let uses = reads.iter().copied().chain([&out]).map(Tensor::shallow_clone).collect();
    let graph = torch_ext::Graph::record::<torch_ext::Error>(device, None, uses, || {
        for _ in 0..RECORDED {
            out.shallow_clone().f_copy_(&work()?)?;
        }
        Ok(())
    })?;
    let (milliseconds, _) = timed(index(device), &|| {
        graph.replay()?;
        Ok(Vec::new())
    })?;
    Ok(Given { milliseconds: milliseconds / RECORDED as f64, results: vec![out] })
}
