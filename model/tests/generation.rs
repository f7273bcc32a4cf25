//! Generation against the original's way (`scripts/reference/greedy.py`) and against itself.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
use model::generate::{Failure, GenerationEvent, Generator, Options, Order, Outcome, Start, Summary, WrittenPiece};
use model::sampling::Sampling;
use model::{Architecture, NotaGen};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use tch::{Device, Kind};

fn network() -> NotaGen {
    // The network is small, and tests run side by side.
    tch::set_num_threads(1);
    let architecture = Architecture { dropout: 0.0, ..Architecture::sized(64, 2, 1, 64) };
    let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
    let file = model::pth::File::open(&folder().join("greedy.pth")).unwrap();
    let weights = file.root().get("model").unwrap();
    let get = |name: &str| Ok(weights.get(name).and_then(|v| v.as_tensor()).map(|t| t.load(Device::Cpu).unwrap()));
    model.load::<model::Error>(get).unwrap();
    model
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden() -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder().join("greedy.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["pieces"].as_array().unwrap().clone()
}

fn start(golden: &serde_json::Value) -> Start {
    let lines = golden["prompt"].as_str().unwrap().split_inclusive('\n');
    Start { prompt: lines.map(str::to_owned).collect(), music: None }
}

fn run(kind: Kind, options: &Options) -> (BTreeMap<usize, WrittenPiece>, Summary) {
    let mut pieces = BTreeMap::new();
    let summary = Generator::new(&network(), kind)
        .unwrap()
        .run(options, &mut |event| {
            if let GenerationEvent::Finished(piece) = event {
                assert!(pieces.insert(piece.index, piece.clone()).is_none(), "piece {} came twice", piece.index);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(summary.pieces, pieces.len());
    (pieces, summary)
}

fn texts(pieces: &BTreeMap<usize, WrittenPiece>) -> Vec<&str> {
    pieces.values().map(|piece| piece.text.as_str()).collect()
}

#[test]
fn greedy_text_is_the_originals_across_slides_whatever_the_batch_size() {
    let golden: Vec<_> = golden().into_iter().filter(|piece| piece["ended"].as_bool().unwrap()).collect();
    assert!(golden.iter().filter(|piece| piece["slides"].as_i64().unwrap() >= 2).count() >= 3);
    for (batch_size, samples) in [(1, 6), (2, 6), (7, 14), (32, 38)] {
        let options = Options {
            samples,
            batch_size: Some(batch_size),
            sampling: Sampling { top_k: 1, top_p: 0.9, temperature: 1.2 },
            starts: golden.iter().map(start).collect(),
            max_characters: 4000,
            ..Options::default()
        };
        let (pieces, summary) = run(Kind::Float, &options);
        assert_eq!((summary.pieces, summary.failed, summary.batch_size), (samples, 0, batch_size));
        for piece in pieces.values() {
            let expected = golden[piece.index % golden.len()]["text"].as_str().unwrap();
            assert_eq!(piece.text, expected, "piece {} in batches of {batch_size}", piece.index);
            assert_eq!(piece.outcome, Outcome::Ended);
        }
    }
}

#[test]
fn a_text_that_gets_too_long_fails_where_the_originals_does_and_is_tried_again() {
    let golden = golden().into_iter().find(|piece| !piece["ended"].as_bool().unwrap()).unwrap();
    let options = Options {
        sampling: Sampling::GREEDY,
        starts: vec![start(&golden)],
        max_characters: golden["max_characters"].as_u64().unwrap() as usize,
        max_attempts: 2,
        ..Options::default()
    };
    let mut failures = Vec::new();
    let summary = Generator::new(&network(), Kind::Float)
        .unwrap()
        .run(&options, &mut |event| {
            if let GenerationEvent::Failed { attempt, reason, text, retried, .. } = event {
                failures.push((attempt, reason.clone(), text.to_owned(), retried));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let text = golden["text"].as_str().unwrap().to_owned();
    assert!(summary.patches > 20 && summary.seconds > 0.0, "{summary:?}");
    let reason = Failure::Characters(options.max_characters);
    assert_eq!(failures, [(1, reason.clone(), text.clone(), true), (2, reason, text, false)]);
    assert_eq!((summary.pieces, summary.failed, summary.given_up.as_slice()), (0, 2, [0].as_slice()));
}

fn sampled(samples: usize, batch_size: usize) -> Options<'static> {
    Options {
        samples,
        batch_size: Some(batch_size),
        seed: 11,
        sampling: Sampling { top_k: 9, top_p: 0.9, temperature: 1.0 },
        max_patches: Some(150),
        ..Options::default()
    }
}

#[test]
fn a_piece_is_the_same_whatever_the_batch_size() {
    for (kind, largest) in [(Kind::Float, 32), (Kind::BFloat16, 9), (Kind::Half, 9)] {
        let (reference, _) = run(kind, &sampled(largest, largest));
        let different: HashSet<_> = texts(&reference).into_iter().collect();
        assert!(different.len() > largest / 2, "pieces differ from each other");
        let ragged: HashSet<_> = reference.values().map(|piece| piece.patches).collect();
        assert!(ragged.len() > 1, "pieces have different lengths");
        for (batch_size, samples) in [(1, 2), (2, 5), (7, 9)] {
            let (pieces, _) = run(kind, &sampled(samples, batch_size));
            assert_eq!(texts(&pieces), texts(&reference)[..samples], "{kind:?} in batches of {batch_size}");
        }
    }
}

#[test]
fn shards_together_are_the_whole_and_finished_pieces_are_skipped() {
    let (whole, _) = run(Kind::Float, &sampled(9, 9));
    let mut together = BTreeMap::new();
    for i in 0..2 {
        let (pieces, _) = run(Kind::Float, &Options { shard: (i, 2), skip: &|i| i == 4, ..sampled(9, 3) });
        together.extend(pieces);
    }
    assert!(!together.contains_key(&4));
    assert_eq!(together.len(), 8);
    for (index, piece) in together {
        assert_eq!(piece.text, whole[&index].text);
    }
}

#[test]
fn another_seed_gives_other_pieces() {
    let (a, _) = run(Kind::Float, &sampled(2, 2));
    let (b, _) = run(Kind::Float, &Options { seed: 12, ..sampled(2, 2) });
    assert_ne!(texts(&a), texts(&b));
    assert_ne!(texts(&a)[0], texts(&a)[1]);
}

#[test]
fn a_refused_text_is_tried_again_with_other_random_numbers_and_counted() {
    let first = run(Kind::Float, &sampled(1, 1)).0[&0].text.clone();
    let check = |text: &str| if text == first { Err("no good".to_owned()) } else { Ok(()) };
    let mut reasons = Vec::new();
    let mut pieces = Vec::new();
    let summary = Generator::new(&network(), Kind::Float)
        .unwrap()
        .run(&Options { check: &check, ..sampled(1, 1) }, &mut |event| {
            match event {
                GenerationEvent::Failed { reason, retried: true, .. } => reasons.push(reason.to_string()),
                GenerationEvent::Finished(piece) => pieces.push(piece.clone()),
                _ => (),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((reasons, summary.failed, summary.pieces), (vec!["no good".to_owned()], 1, 1));
    assert_eq!(pieces[0].attempts, 2);
    assert_ne!(pieces[0].text, first);
}

#[test]
fn a_run_stops_when_told_and_keeps_what_it_had() {
    let mut seen = 0;
    let summary = Generator::new(&network(), Kind::Float)
        .unwrap()
        .run(&sampled(20, 4), &mut |event| match event {
            GenerationEvent::Finished(_) => {
                seen += 1;
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap();
    assert!(summary.stopped);
    assert_eq!(summary.pieces, seen);
    assert!(summary.pieces < 20);
}

#[test]
fn music_is_gone_on_from() {
    let (whole, _) = run(Kind::Float, &Options { sampling: Sampling::GREEDY, ..sampled(1, 1) });
    let text = &whole[&0].text;
    // In the middle of a bar, at a place where a patch ends for the network too.
    let bar = text.match_indices('|').nth(5).unwrap().0;
    let music = Some(text[..bar].to_owned());
    let options = Options { starts: vec![Start { prompt: Vec::new(), music }], ..sampled(2, 2) };
    let (pieces, _) = run(Kind::Float, &options);
    for piece in pieces.values() {
        assert!(piece.text.starts_with(&text[..bar]) && piece.text.len() > bar + 50, "{}", piece.text);
        assert_eq!(piece.text.matches("[r:0/").count(), 1, "{}", piece.text);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let mut generator = Generator::new(&network(), Kind::Float).unwrap();
    let mut refused = |options: Options| generator.run(&options, &mut |_| ControlFlow::Continue(())).is_err();
    assert!(refused(Options { shard: (2, 2), ..Options::default() }));
    assert!(refused(Options { batch_size: Some(0), ..Options::default() }));
    assert!(refused(Options { max_attempts: 0, ..Options::default() }));
    assert!(refused(Options { sampling: Sampling { temperature: 0.0, ..Sampling::default() }, ..Options::default() }));
    assert!(Generator::new(&network(), Kind::Int64).is_err());
}

/// An order, and the text of the run that has it alone.
fn order(number: u64) -> (Order, String) {
    let sampling = Sampling {
        top_k: [9, 1, 3, 5, 7, 2, 4][number as usize % 7],
        top_p: 0.9,
        temperature: 1.0 + 0.1 * number as f64,
    };
    let prompt = ["%Baroque\n", "%Classical\n"].map(str::to_owned)[..number as usize % 3].to_vec();
    let order = Order {
        seed: 100 + number,
        sampling,
        start: Start { prompt, music: None },
        max_patches: Some(40 + 7 * number as usize),
    };
    let options = Options {
        batch_size: Some(1),
        seed: order.seed,
        sampling,
        starts: vec![order.start.clone()],
        max_patches: order.max_patches,
        ..Options::default()
    };
    (order, run(Kind::Float, &options).0[&0].text.clone())
}

#[test]
fn pieces_that_come_go_and_come_back_are_those_of_runs_of_their_own() {
    let (orders, expected): (Vec<Order>, Vec<String>) = (0..7).map(order).unzip();
    assert!(expected.iter().collect::<HashSet<_>>().len() > 4);
    let mut generator = Generator::new(&network(), Kind::Float).unwrap();
    let options = Options { batch_size: Some(3), ..Options::default() };
    let mut session = generator.session(&options).unwrap();
    assert!(session.is_empty() && session.slots() == 3 && session.pause(0).is_none());

    let (mut texts, mut begun, mut paused) = (vec![String::new(); 7], Vec::new(), Vec::new());
    let mut finished = HashSet::new();
    for round in 0.. {
        // One every five rounds, whether there is room for it or not.
        if round % 5 == 0 && round / 5 < 7 {
            session.add(round / 5, &orders[round / 5]).unwrap();
        }
        // Two are taken out, and come back when others have had their slots.
        if round == 13 {
            paused.push(session.pause(1).unwrap());
        }
        if round == 31 {
            paused.push(session.pause(6).unwrap());
        }
        if round == 40 {
            paused.drain(..).for_each(|piece| session.resume(piece));
        }
        session
            .round(&mut |event| match event {
                GenerationEvent::Began { index, text, .. } => {
                    begun.push(index);
                    texts[index] = text.to_owned();
                }
                GenerationEvent::Text { index, text } => texts[index] += text,
                GenerationEvent::Finished(piece) => {
                    assert!(finished.insert(piece.index) && piece.text == texts[piece.index])
                }
                _ => (),
            })
            .unwrap();
        assert!(round < 1000, "{finished:?}");
        if round > 40 && session.is_empty() {
            break;
        }
    }
    assert_eq!(texts, expected);
    assert_eq!((finished.len(), begun.len(), session.free()), (7, 7, 3));
}

#[test]
fn a_session_refuses_an_order_and_goes_on_with_the_others() {
    let mut generator = Generator::new(&network(), Kind::Float).unwrap();
    let options =
        Options { batch_size: Some(2), max_attempts: 2, check: &|_| Err("no good".to_owned()), ..Options::default() };
    let mut session = generator.session(&options).unwrap();
    let long = Start { prompt: vec!["%a long line\n".repeat(400)], music: None };
    assert!(session.add(0, &Order { start: long, ..Order::default() }).is_err());
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    assert!(session.add(1, &Order { sampling, ..Order::default() }).is_err());
    session.add(2, &Order { max_patches: Some(3), ..Order::default() }).unwrap();
    let mut failed = Vec::new();
    while !session.is_empty() {
        session
            .round(&mut |event| {
                if let GenerationEvent::Failed { index, attempt, retried, .. } = event {
                    failed.push((index, attempt, retried));
                }
            })
            .unwrap();
    }
    assert_eq!(failed, [(2, 1, true), (2, 2, false)]);
}
