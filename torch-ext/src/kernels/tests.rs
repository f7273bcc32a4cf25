//! The kernels' own sources on a CPU: compiled by g++ with `kernels/host.h`, which runs a block's threads as fibres, into a library
//! of the same face as the CUDA part.
use super::*;
use crate::ffi::{c_string, check, te_cuda_part};
use check::{agrees, difference, numbers, tolerance};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

const CPU: Device = Device::Cpu;
const HALVES: [Kind; 2] = [Kind::Half, Kind::BFloat16];

fn on_the_host() -> &'static Api {
    static API: OnceLock<&'static Api> = OnceLock::new();
    API.get_or_init(|| {
        let library = c_string(&compiled().to_string_lossy()).unwrap();
        let mut found = std::ptr::null_mut();
        // SAFETY: two strings and an out-pointer; the constant has this layout, and the library stays loaded.
        unsafe {
            check(te_cuda_part(library.as_ptr(), c"te_kernels".as_ptr(), &mut found)).unwrap();
            &*found.cast::<Api>()
        }
    })
}

/// The library, made anew where a source is newer.
fn compiled() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = Path::new(env!("OUT_DIR")).join("kernels-host.so");
    let time = |file: &Path| file.metadata().and_then(|m| m.modified()).ok();
    let mut sources: Vec<PathBuf> =
        crate_folder.join("kernels").read_dir().unwrap().map(|f| f.unwrap().path()).collect();
    sources.push(crate_folder.join("shim/kernels.cpp"));
    let newest: Option<SystemTime> = sources.iter().filter_map(|file| time(file)).max();
    if time(&library) > newest {
        return library;
    }
    let include = Path::new(env!("TORCH_EXT_LIBTORCH")).join("include");
    let part = library.with_extension(std::process::id().to_string());
    let mut command = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned()));
    command.args(["-std=c++17", "-O2", "-w", "-fPIC", "-shared", "-DKERNELS_HOST", "-DAT_PER_OPERATOR_HEADERS"]);
    for folder in [&include, &include.join("torch/csrc/api/include"), &crate_folder.join("shim")] {
        command.arg("-I").arg(folder);
    }
    command.args(["-x", "c++"]).args(sources.iter().filter(|file| file.extension().is_some_and(|end| end != "h")));
    assert!(command.arg("-o").arg(&part).status().unwrap().success());
    std::fs::rename(&part, &library).unwrap();
    library
}

#[test]
fn the_check_on_a_card_passes_for_right_kernels() {
    for kernel in Kernel::ALL {
        for kind in [Kind::Half, Kind::BFloat16, Kind::Float] {
            if kernel.takes(kind) {
                agrees(on_the_host(), kernel, CPU, kind).unwrap_or_else(|error| panic!("{kernel}, {kind:?}: {error}"));
            }
        }
    }
}

/// Result and derivative with respect to `qkv`.
fn with_slope(qkv: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> (Tensor, Tensor) {
    let qkv = qkv.copy().set_requires_grad(true);
    let out = f(&qkv);
    let weights = numbers(&out.size(), 1.0, 0.4, CPU, Kind::Float).unwrap();
    (out.to_kind(Kind::Float) * weights).sum(Kind::Float).backward();
    (out.detach(), qkv.grad())
}

#[test]
fn short_attention_is_libtorchs_for_every_length() {
    let heads = 2;
    for (longest, causal) in [(16, true), (17, true), (17, false), (16, false), (24, true)] {
        let lengths = (1..=longest).rev().chain([1, longest, 0, 3]);
        let starts: Vec<i32> = std::iter::once(0)
            .chain(lengths.scan(0, |sum, n| {
                *sum += n;
                Some(*sum)
            }))
            .collect();
        let tokens = i64::from(*starts.last().unwrap());
        let starts = Tensor::from_slice(&starts);
        for kind in HALVES {
            let qkv = numbers(&[tokens, 3 * heads * HEAD_SIZE], 2.0, 0.1, CPU, kind).unwrap();
            let (ours, slope) = with_slope(&qkv, |qkv| {
                on_the_host().short_attention(qkv, &starts, heads, longest.into(), 0.0, causal).unwrap()
            });
            let (theirs, right) = with_slope(&qkv.to_kind(Kind::Float), |qkv| {
                libtorch::short_attention(qkv, &starts, heads, longest.into(), 0.0, causal).unwrap()
            });
            assert_eq!((ours.kind(), slope.kind()), (kind, kind));
            for (ours, theirs) in [(ours, theirs), (slope, right)] {
                let by = difference(&ours, &theirs).unwrap();
                assert!(by < tolerance(kind), "{longest} {causal} {kind:?}: {by}");
            }
        }
    }
}

/// Against `scaled_dot_product_attention`, one sequence after the other.
#[test]
fn libtorchs_path_attends_inside_each_sequence() {
    let (heads, starts) = (2, [0, 5, 5, 12, 29]);
    let qkv = numbers(&[29, 3 * heads * HEAD_SIZE], 2.0, 0.1, CPU, Kind::Float).unwrap();
    let attend = |from: i64, to: i64, causal| {
        let parts = qkv.narrow(0, from, to - from).view([1, to - from, 3, heads, HEAD_SIZE]).permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|i| parts.get(i));
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, causal, None, false);
        out.transpose(1, 2).reshape([to - from, heads * HEAD_SIZE])
    };
    for causal in [true, false] {
        let right: Vec<Tensor> =
            starts.windows(2).filter(|w| w[0] < w[1]).map(|w| attend(w[0], w[1], causal)).collect();
        let right = Tensor::cat(&right, 0);
        let starts32 = Tensor::from_slice(&starts.map(|s| s as i32));
        let ours = short_attention(&qkv, &starts32, heads, 17, 0.0, causal).unwrap();
        assert!(difference(&ours, &right).unwrap() < 1e-5);
        // As many tokens as full sequences have.
        let full = short_attention(&qkv.narrow(0, 0, 28), &Tensor::from_slice(&[0i32, 14, 28]), heads, 14, 0.0, causal);
        let right = Tensor::cat(&[attend(0, 14, causal), attend(14, 28, causal)], 0);
        assert!(difference(&full.unwrap(), &right).unwrap() < 1e-5);
    }
}

#[test]
fn short_attention_reads_rows_apart_and_gradients_of_any_layout() {
    let starts = Tensor::from_slice(&[0i32, 9, 20]);
    let attend = |qkv: &Tensor| on_the_host().short_attention(qkv, &starts, 1, 16, 0.0, true).unwrap();
    let wide = numbers(&[20, 256], 2.0, 0.1, CPU, Kind::Half).unwrap();
    let right = attend(&wide.narrow(1, 0, 192).contiguous());
    assert_eq!(attend(&wide.narrow(1, 0, 192)), right);
    let odd = numbers(&[20, 195], 2.0, 0.1, CPU, Kind::Half).unwrap();
    assert_eq!(attend(&odd.narrow(1, 3, 192)), attend(&odd.narrow(1, 3, 192).contiguous()));
    // A gradient of one number, expanded, and one that is transposed.
    let slopes = [false, true].map(|transposed| {
        let qkv = wide.narrow(1, 0, 192).contiguous().set_requires_grad(true);
        let out = attend(&qkv);
        let ones = Tensor::ones([64, 20], (Kind::Half, CPU)).transpose(0, 1);
        if transposed { (out * ones).sum(Kind::Half) } else { out.sum(Kind::Half) }.backward();
        qkv.grad()
    });
    assert_eq!(slopes[0], slopes[1]);
}

#[test]
fn dropout_is_drawn_from_the_seed_and_keeps_the_mean() {
    let (sequences, length) = (24i64, 16i64);
    let starts = Tensor::from_slice(&(0..=sequences).map(|i| (i * length) as i32).collect::<Vec<_>>());
    // Equal weights over values of 1: each result is the share that was kept, over 1 - 0.25.
    let qkv = Tensor::zeros([sequences * length, 2 * 192], (Kind::Half, CPU));
    let _ = qkv.narrow(1, 2 * 128, 128).fill_(1.0);
    let attend = |seed, qkv: &Tensor| {
        tch::manual_seed(seed);
        on_the_host().short_attention(qkv, &starts, 2, 16, 0.25, false).unwrap().to_kind(Kind::Float)
    };
    let out = attend(5, &qkv);
    let mean = out.mean(Kind::Float).double_value(&[]);
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    // 12,288 weights, 16 a row: the spread of a mean of 16 is sqrt(0.25 * 0.75 / 16) / 0.75.
    let spread = out.view([-1, 2, 64]).select(2, 0).std(true).double_value(&[]);
    assert!((spread - 0.144).abs() < 0.02, "{spread}");
    assert_eq!(out, attend(5, &qkv));
    assert_ne!(out, attend(6, &qkv));
}

/// The mask that the derivative uses is the result's: with values that tell keys apart both can be read off.
#[test]
fn dropout_is_the_same_in_the_derivative() {
    for length in [16i64, 17] {
        let starts = Tensor::from_slice(&[0i32, length as i32]);
        let qkv = numbers(&[length, 192], 2.0, 0.1, CPU, Kind::Half).unwrap();
        // The weights kept, (queries, keys): the results for values of the unit matrix.
        qkv.narrow(1, 128, 64).copy_(&Tensor::eye(length, (Kind::Half, CPU)).constant_pad_nd([0, 64 - length]));
        let qkv = qkv.set_requires_grad(true);
        tch::manual_seed(3);
        let out = on_the_host().short_attention(&qkv, &starts, 1, length, 0.4, true).unwrap();
        let weights = out.detach().narrow(1, 0, length).to_kind(Kind::Float);
        let slope = numbers(&[length, 64], 1.0, 0.2, CPU, Kind::Half).unwrap();
        (out * &slope).sum(Kind::Float).backward();
        let (grad, slope) = (qkv.grad().to_kind(Kind::Float), slope.to_kind(Kind::Float));
        assert!(difference(&grad.narrow(1, 128, 64), &weights.transpose(0, 1).matmul(&slope)).unwrap() < 3e-3);
        // And through the softmax.
        let [q, k, v] = [0, 64, 128].map(|at| qkv.detach().narrow(1, at, 64).to_kind(Kind::Float));
        let q = q.set_requires_grad(true);
        let ahead = Tensor::ones([length, length], (Kind::Bool, CPU)).triu(1);
        let p = (q.matmul(&k.transpose(0, 1)) / 8.0).masked_fill(&ahead, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        let mask = weights.gt(0.0).to_kind(Kind::Float) / 0.6;
        ((p * mask).matmul(&v) * &slope).sum(Kind::Float).backward();
        assert!(difference(&grad.narrow(1, 0, 64), &q.grad()).unwrap() < 3e-3);
    }
}

#[test]
fn new_tokens_attend_to_all_kept_ones_wherever_they_lie() {
    let (rows, heads) = (5, 2);
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float] {
        for capacity in [17, 33, 300] {
            for positions in [[0, 1, 2, 3, 4], [16, 16, 16, 16, 16], [capacity - 1, 15, 9, 16, -1]] {
                let wide = numbers(&[rows, 3 * heads * HEAD_SIZE + 64], 2.0, 0.0, CPU, kind).unwrap();
                let qkv = wide.narrow(1, 64, 3 * heads * HEAD_SIZE);
                // Part of a cache for more slots, heads and positions.
                let cache = |first| {
                    let all = numbers(&[rows + 2, heads + 1, capacity + 5, HEAD_SIZE], 1.0, first, CPU, kind).unwrap();
                    all.narrow(2, 0, capacity).narrow(1, 0, heads)
                };
                let kept = [cache(0.3), cache(0.6), cache(0.3), cache(0.6)];
                let positions = Tensor::from_slice(&positions);
                let narrow = positions.to_kind(Kind::Int);
                let ours = on_the_host().append_attend(&qkv, &kept[0], &kept[1], &narrow).unwrap();
                let again = on_the_host().append_attend(&qkv, &kept[0], &kept[1], &positions).unwrap();
                let theirs = libtorch::append_attend(&qkv.contiguous(), &kept[2], &kept[3], &positions).unwrap();
                let by = difference(&ours, &theirs).unwrap();
                assert!(by < tolerance(kind), "{capacity} {kind:?}: {by}");
                assert_eq!(ours, again);
                assert_eq!(kept[0], kept[2]);
                assert_eq!(kept[1], kept[3]);
            }
        }
    }
}

/// One setting for all rows, one operation after the other, as the model has it.
fn drawn(logits: &Tensor, uniform: &Tensor, top_k: i64, top_p: f64, temperature: f64) -> Tensor {
    let total = |p: &Tensor| p.sum_dim_intlist(-1, true, Kind::Float);
    let normalise = |p: &Tensor| {
        let p = p.nan_to_num(0.0, None::<f64>, None::<f64>).clamp_min(0.0) + 1e-12;
        &p / total(&p)
    };
    if top_k == 1 {
        return logits.argmax(-1, false);
    }
    let (mut p, order) = normalise(&logits.softmax(-1, Kind::Float)).sort(-1, true);
    if top_k > 0 && top_k < 128 {
        let _ = p.narrow(-1, top_k, 128 - top_k).zero_();
        p = &p / total(&p);
    }
    p = normalise(&p);
    if top_p < 1.0 {
        let before = p.cumsum(-1, Kind::Float).narrow(-1, 0, 127);
        let _ = p.narrow(-1, 1, 127).masked_fill_(&before.gt(top_p), 0.0);
        p = &p / total(&p);
    }
    p = normalise(&p);
    if temperature != 1.0 {
        p = p.pow_tensor_scalar(1.0 / temperature);
    }
    p = &p / total(&p);
    let cumulative = p.empty_like().scatter_(-1, &order, &p).cumsum(-1, Kind::Float);
    let at = uniform.unsqueeze(-1) * cumulative.narrow(-1, 127, 1);
    cumulative.le_tensor(&at).sum_dim_intlist(-1, false, Kind::Int64).clamp_max(127)
}

#[test]
fn draws_are_the_models_for_every_setting_in_one_batch() {
    let settings =
        [(9, 0.9, 1.2), (0, 1.0, 1.0), (1, 1.0, 1.0), (0, 0.5, 0.6), (128, 0.95, 1.5), (3, 1.0, 1.2), (200, 0.99, 1.0)];
    let each = 64;
    let rows = each * settings.len() as i64;
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
        tch::manual_seed(4);
        let wide = (Tensor::randn([rows, 256], (Kind::Float, CPU)) * 4.0).to_kind(kind);
        let logits = wide.narrow(1, 64, 128);
        let uniform = Tensor::rand([rows, 16], (Kind::Float, CPU));
        let uniform = uniform.select(1, 5);
        let of = |i: usize, t: &Tensor| t.narrow(0, i as i64 * each, each);
        let right: Vec<Tensor> = settings
            .iter()
            .enumerate()
            .map(|(i, &(k, p, t))| drawn(&of(i, &logits), &of(i, &uniform), k, p, t))
            .collect();
        let right = Tensor::cat(&right, 0);
        let table: Vec<f32> =
            settings.iter().flat_map(|&(k, p, t)| [k as f32, p as f32, t as f32].repeat(each as usize)).collect();
        let table = Tensor::from_slice(&table).view([rows, 3]);
        let fixed = Tensor::full([rows, 3], -1, (Kind::Int64, CPU));
        let fixed = fixed.select(1, 1);
        let out = Tensor::zeros([rows, 2], (Kind::Int64, CPU));
        on_the_host().draw(&logits, &uniform, &table, &fixed, &out.select(1, 1)).unwrap();
        let packed: Vec<f32> = settings.iter().flat_map(|&(k, p, t)| draw_row(k, p, t).repeat(each as usize)).collect();
        let packed = Tensor::from_slice(&packed).view([rows, 3]);
        let theirs = draw(&logits, &uniform, &DrawSettings::new(&packed, kind).unwrap(), &fixed).unwrap();
        for ours in [out.select(1, 1), theirs] {
            let differing = ours.ne_tensor(&right).sum(Kind::Int64).int64_value(&[]);
            assert!(differing <= 1, "{differing} in {kind:?}");
        }
    }
}

#[test]
fn draws_of_fixed_characters_ties_and_what_is_not_a_number() {
    let mut rows = vec![0f32; 4 * 128];
    rows[128..256].fill(f32::NAN);
    rows[256..384].fill(f32::NEG_INFINITY);
    rows[256 + 7] = 1.0;
    let logits = Tensor::from_slice(&rows).view([4, 128]);
    let settings = Tensor::from_slice(&[0f32, 1.0, 1.0, 9.0, 0.9, 1.2, 9.0, 0.9, 1.2, 1.0, 1.0, 1.0]).view([4, 3]);
    let uniform = Tensor::from_slice(&[0.5f32, 0.99, 0.99, 0.7]);
    let fixed = Tensor::from_slice(&[-1i64, -1, -1, -1]);
    let out = fixed.empty_like();
    on_the_host().draw(&logits, &uniform, &settings, &fixed, &out).unwrap();
    let drawn = Vec::<i64>::try_from(&out).unwrap();
    assert!((63..=64).contains(&drawn[0]) && (0..128).contains(&drawn[1]), "{drawn:?}");
    assert_eq!(drawn[2..], [7, 0]);
    on_the_host().draw(&logits, &uniform, &settings, &Tensor::from_slice(&[3i64, 0, 127, 64]), &out).unwrap();
    assert_eq!(Vec::<i64>::try_from(&out).unwrap(), [3, 0, 127, 64]);
}

#[test]
fn a_norm_step_is_libtorchs_for_any_width() {
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float] {
        for hidden in [8i64, 72, 512, 520, 1280, 2048] {
            for adds in [true, false] {
                let stream = || numbers(&[3, hidden], 3.0, 0.0, CPU, Kind::Float).unwrap() + 5.0;
                let (x, right) = (stream(), stream());
                let delta = adds.then(|| numbers(&[3, hidden], 2.0, 0.4, CPU, kind).unwrap());
                let [weight, bias] = [0.1, 0.2].map(|first| numbers(&[hidden], 1.0, first, CPU, Kind::Float).unwrap());
                let ours = on_the_host().norm_step(&x, delta.as_ref(), &weight, &bias, 1e-5, kind).unwrap();
                let theirs = libtorch::norm_step(&right, delta.as_ref(), &weight, &bias, 1e-5, kind).unwrap();
                assert_eq!((ours.kind(), &x), (kind, &right));
                assert!(difference(&ours, &theirs).unwrap() < tolerance(kind), "{kind:?} {hidden}");
            }
        }
    }
}

/// Float32 gradients by libtorch's formula, for every width, number of rows, and use of the two results.
#[test]
fn a_norm_with_a_derivative_is_libtorchs_however_its_results_are_used() {
    for kind in HALVES {
        for (rows, hidden) in [(1i64, 8i64), (40, 72), (100, 520), (17, 1280), (2, 2048)] {
            for used in [(true, true), (false, true), (true, false)] {
                let run = |own: bool| {
                    let of = |shape: &[i64], first, kind| numbers(shape, 2.0, first, CPU, kind).unwrap();
                    let inputs = [
                        of(&[rows, hidden], 0.0, Kind::Float) + 3.0,
                        of(&[rows, hidden], 0.4, kind),
                        of(&[hidden], 0.1, Kind::Float),
                        of(&[hidden], 0.2, Kind::Float),
                    ]
                    .map(|t| t.set_requires_grad(true));
                    let [x, delta, weight, bias] = &inputs;
                    let (sum, norm) = match own {
                        true => on_the_host().add_norm(x, delta, weight, bias, 1e-5).unwrap(),
                        false => libtorch::add_norm(x, delta, weight, bias, 1e-5).unwrap(),
                    };
                    let slope = |first| of(&[rows, hidden], first, Kind::Float);
                    let mut loss = Tensor::zeros([], (Kind::Float, CPU));
                    if used.0 {
                        loss += (&sum * slope(0.6)).sum(Kind::Float);
                    }
                    if used.1 {
                        loss += (norm.to_kind(Kind::Float) * slope(0.8)).sum(Kind::Float);
                    }
                    loss.backward();
                    let grads = inputs.map(|t| t.grad());
                    (sum.detach(), norm.detach(), grads)
                };
                let (sum, norm, grads) = run(true);
                let (right_sum, right_norm, right) = run(false);
                assert_eq!((&sum, norm.kind()), (&right_sum, kind));
                assert!(difference(&norm, &right_norm).unwrap() < tolerance(kind));
                for (i, (ours, theirs)) in grads.iter().zip(&right).enumerate() {
                    // Without the norm its weight and bias have no gradient.
                    assert_eq!(ours.defined(), theirs.defined(), "{i} {used:?}");
                    if ours.defined() {
                        assert_eq!(ours.kind(), theirs.kind());
                        let by = difference(ours, theirs).unwrap();
                        assert!(by < tolerance(kind), "{i} {rows} {hidden} {kind:?} {used:?}: {by}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_kernel_cannot_take_is_an_error_in_one_line() {
    let api = on_the_host();
    let starts = Tensor::from_slice(&[0i32, 2]);
    let qkv = Tensor::zeros([2, 192], (Kind::Half, CPU));
    let long = api.short_attention(&qkv, &starts, 1, 25, 0.0, true);
    let wide = api.short_attention(&qkv, &starts, 2, 16, 0.0, true);
    let float = api.short_attention(&qkv.to_kind(Kind::Float), &starts, 1, 16, 0.0, true);
    let places = api.short_attention(&qkv, &starts.to_kind(Kind::Int64), 1, 16, 0.0, true);
    let caches = Tensor::zeros([1, 1, 8, 64], (Kind::Half, CPU));
    let slots = api.append_attend(&qkv, &caches, &caches, &Tensor::from_slice(&[0i64, 0]));
    for error in [long, wide, float, places, slots] {
        let error = error.unwrap_err().to_string();
        assert!(!error.contains('\n') && error.len() < 200, "{error}");
    }
}

#[test]
fn a_cpu_uses_libtorchs_path_and_says_why() {
    assert!(available(CPU).unwrap_err().to_string().contains("no CUDA device"));
    assert!(Kernel::ALL.iter().all(|&kernel| !is_own(kernel, CPU, Kind::Half)));
    assert_eq!(ready(CPU, Kind::Half).unwrap(), Vec::<String>::new());
}
