//! Ranks as threads of one process: collectives, the exchange of gradients, and peers that fail.
#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use torch_ext::{ErrorKind, JoinOptions, ProcessGroup, Reduce, Reducer, ReducerOptions, StoreServer, World};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Runs `work` on every rank and returns what they give, by rank.
fn ranks<T: Send + 'static>(
    size: usize,
    timeout: u64,
    work: impl Fn(Arc<World>) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let server = StoreServer::start().unwrap();
    let (port, work) = (server.port(), Arc::new(work));
    let threads: Vec<_> = (0..size)
        .map(|rank| {
            let work = work.clone();
            thread::spawn(move || {
                let timeout = Duration::from_secs(timeout);
                let host = "127.0.0.1".to_owned();
                let join = JoinOptions { host, port, serve: false, rank, size, timeout, prefix: "test".to_owned() };
                work(Arc::new(World::join(&join).unwrap()))
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn group(world: &Arc<World>) -> Arc<ProcessGroup> {
    Arc::new(ProcessGroup::new(world, Device::Cpu).unwrap())
}

#[test]
fn collectives_put_the_ranks_together() {
    let found = ranks(3, 300, |world| {
        let group = group(&world);
        let mine = || Tensor::from_slice(&[group.rank() as f32, 1.0]);
        let (sum, most, first) = (mine(), mine(), mine());
        group.all_reduce(&sum, Reduce::Sum).unwrap();
        group.all_reduce(&most, Reduce::Max).unwrap();
        group.broadcast(std::slice::from_ref(&first), 2).unwrap();
        group.barrier().unwrap();
        let all = Tensor::stack(&group.all_gather(&mine()).unwrap(), 0);
        [sum, most, first, all].map(|tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap())
    });
    for of in found {
        assert_eq!(of, [vec![3.0, 3.0], vec![2.0, 1.0], vec![2.0, 1.0], vec![0.0, 1.0, 1.0, 1.0, 2.0, 1.0]]);
    }
}

/// Six layers of a megabyte.
fn layers() -> Vec<Tensor> {
    (0..6).map(|i| (Tensor::ones([512, 512], CPU) * (0.001 * f64::from(i + 1))).set_requires_grad(true)).collect()
}

fn forward(layers: &[Tensor], rows: &Tensor) -> Tensor {
    layers.iter().fold(rows.shallow_clone(), |x, layer| x.matmul(layer).relu()).sum(Kind::Float)
}

#[test]
fn gradients_are_summed_in_buckets_while_the_backward_pass_runs() {
    let found = ranks(2, 300, |world| {
        let layers = layers();
        let options = ReducerOptions { bucket: 1 << 20, first_bucket: 1 << 20, compress: None };
        let reducer = Reducer::new(&group(&world), &layers, options).unwrap();
        let rows = Tensor::ones([64, 512], CPU) * (world.rank() + 1) as f64;
        // Two passes of which the second exchanges what both have added up.
        forward(&layers, &rows).backward();
        let loss = forward(&layers, &rows);
        let begun = Instant::now();
        reducer.backward(&loss).unwrap();
        let ended = begun.elapsed().as_secs_f64();
        let trace = reducer.trace().unwrap();
        (
            layers.iter().map(|layer| f64::try_from(layer.grad().sum(Kind::Double)).unwrap()).collect::<Vec<_>>(),
            trace,
            ended,
        )
    });
    // One process with the rows of both ranks, twice.
    let layers = layers();
    let rows = Tensor::cat(&[Tensor::ones([64, 512], CPU), Tensor::ones([64, 512], CPU) * 2.0], 0);
    for _ in 0..2 {
        forward(&layers, &rows).backward();
    }
    let expected: Vec<f64> = layers.iter().map(|l| f64::try_from(l.grad().sum(Kind::Double)).unwrap()).collect();
    for (sums, trace, ended) in found {
        for (ours, theirs) in sums.iter().zip(&expected) {
            assert!((ours / theirs - 1.0).abs() < 1e-5, "{sums:?}, {expected:?}");
        }
        println!("backward {ended:.4} s: {trace:?}");
        assert_eq!(trace.len(), 6);
        assert!(trace.windows(2).all(|pair| pair[0].ready <= pair[1].ready));
        assert!(trace.iter().all(|bucket| bucket.ready < bucket.reduced), "{trace:?}");
        assert!(trace[0].ready < trace[5].ready && trace[0].ready < ended, "{ended}: {trace:?}");
    }
}

#[test]
fn gradients_travel_in_half_precision_and_a_rank_may_have_nothing_to_add() {
    for (compress, tolerance) in [(None, 0.0), (Some(Kind::Half), 1e-3), (Some(Kind::BFloat16), 1e-2)] {
        let found = ranks(2, 300, move |world| {
            let param = Tensor::from_slice(&[1.0f32, 3.0]).set_requires_grad(true);
            let options = ReducerOptions { compress, ..ReducerOptions::default() };
            let reducer = Reducer::new(&group(&world), std::slice::from_ref(&param), options).unwrap();
            let loss = match world.rank() {
                0 => (&param * &param).sum(Kind::Float) * 1.001,
                _ => reducer.nothing().unwrap(),
            };
            reducer.backward(&loss).unwrap();
            Vec::<f64>::try_from(param.grad().to_kind(Kind::Double)).unwrap()
        });
        for grad in found {
            for (ours, theirs) in grad.iter().zip([2.002, 6.006]) {
                assert!((ours / theirs - 1.0).abs() <= tolerance + 1e-6, "{compress:?}: {grad:?}");
            }
        }
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_within_the_time_out() {
    let found = ranks(3, 10, |world| {
        let group = group(&world);
        group.barrier().unwrap();
        if world.rank() == 1 {
            // It lives until the others have found out.
            world.wait("found/0", 0).unwrap();
            world.wait("found/2", 2).unwrap();
            return (String::new(), Duration::ZERO);
        }
        let begun = Instant::now();
        let error = group.barrier().unwrap_err().to_string();
        world.set(&format!("found/{}", world.rank()), "").unwrap();
        (error, begun.elapsed())
    });
    for (error, after) in [&found[0], &found[2]] {
        assert!(error.contains("rank 1 lives but has not come so far"), "{error}");
        assert!(*after < Duration::from_secs(60), "{after:?}");
    }
}

#[test]
fn a_rank_that_ends_while_the_others_connect_is_named() {
    let found = ranks(2, 10, |world| match world.rank() {
        0 => ProcessGroup::new(&world, Device::Cpu).unwrap_err().to_string(),
        _ => String::new(),
    });
    assert!(found[0].starts_with("the ranks cannot connect: rank 1 ended or hangs: no sign of life"), "{found:?}");
}

#[test]
fn a_rank_that_ends_in_the_middle_is_named() {
    for place in ["a collective", "the first exchange", "a backward pass"] {
        let found = ranks(2, 300, move |world| {
            let (group, layers) = (group(&world), layers());
            let exchange = || Reducer::new(&group, &layers, ReducerOptions::default());
            let reducer = (place == "a backward pass").then(|| exchange().unwrap());
            if world.rank() == 1 {
                world.wait("here", 0).unwrap();
                return String::new();
            }
            world.set("here", "").unwrap();
            let begun = Instant::now();
            let ended = match reducer {
                None if place == "a collective" => group.barrier(),
                None => exchange().map(drop),
                Some(reducer) => reducer.backward(&forward(&layers, &Tensor::ones([64, 512], CPU))),
            };
            // A connection that breaks is seen at once.
            assert!(begun.elapsed() < Duration::from_secs(60), "{place}: {:?}", begun.elapsed());
            let error = ended.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Peer, "{place}: {error}");
            error.to_string()
        });
        assert!(found[0].contains("rank 1 ended or hangs: no sign of life"), "{place}: {found:?}");
    }
}

/// A failure of its own backward pass was blamed on a peer where its message had one of a few words in it.
#[test]
fn a_failure_of_the_backward_pass_itself_is_no_peers() {
    let found = ranks(1, 10, |world| {
        let param = Tensor::from_slice(&[1.0f32]).set_requires_grad(true);
        let options = ReducerOptions::default();
        let reducer = Reducer::new(&group(&world), std::slice::from_ref(&param), options).unwrap();
        let fails = AtomicBool::new(false);
        let segment = move |x: &Tensor| match fails.swap(true, Ordering::Relaxed) {
            false => Ok(x * 2.0),
            true => Err(tch::TchError::Torch("gloo or NCCL".to_owned()).into()),
        };
        let loss = torch_ext::checkpoint(&param, segment).unwrap().sum(Kind::Float);
        reducer.backward(&loss).unwrap_err()
    });
    assert_eq!(
        (found[0].kind(), found[0].to_string().as_str()),
        (ErrorKind::Internal, "Internal torch error: gloo or NCCL")
    );
}

#[test]
fn a_rank_that_fails_tells_the_others_why() {
    let found = ranks(2, 300, |world| {
        let group = group(&world);
        // Rank 1 must not leave while rank 0 still connects: that is another error.
        if world.rank() == 1 {
            world.wait("connected", 0).unwrap();
            world.fail("score.abc: no such file");
            return String::new();
        }
        world.set("connected", "").unwrap();
        let waits = world.wait("never", 1).unwrap_err().to_string();
        format!("{waits} / {}", group.barrier().unwrap_err())
    });
    assert!(found[0].starts_with("rank 1 failed: score.abc: no such file / rank 1 failed: score.abc"), "{found:?}");
}

#[test]
fn no_one_to_meet_is_an_error() {
    // A port that only root may listen at, and where nothing does any more.
    let (host, port, timeout) = ("127.0.0.1".to_owned(), 1, Duration::from_secs(1));
    let join = JoinOptions { host, port, serve: false, rank: 1, size: 2, timeout, prefix: String::new() };
    let error = World::join(&join).unwrap_err().to_string();
    assert!(error.contains("rank 1 cannot reach the others at 127.0.0.1"), "{error}");
}
