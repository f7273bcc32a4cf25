//! Against the network without caches, one whole pass for every character.
use super::attention::UnreadPatches;
use super::generator::MOST_SLOTS_CPU;
use super::network::{self, Ready};
use super::run::{Run, Terms, Writing};
use super::track::{Beginning, Limits};
use super::writer::DecodePath;
use super::*;
use crate::patches::{Patches, Patchiliser};
use crate::sampling::Sampling;
use crate::{Architecture, Batch, Error, Mode, NotaGen};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use tch::{Device, Kind};

fn network() -> NotaGen {
    // The network is small, and tests run side by side.
    tch::set_num_threads(1);
    let architecture = Architecture { dropout: 0.0, ..Architecture::sized(256, 2, 2, 128) };
    let model = NotaGen::new(&architecture, Device::Cpu, 3).unwrap();
    let _no_grad = tch::no_grad_guard();
    for (_, parameter) in model.parameters() {
        // Larger than at the start of a training: what was read before should matter for what is written.
        let _ = parameter.shallow_clone().multiply_scalar_(6.0);
    }
    model
}

/// The most probable characters of the next patch, up to and with the first end mark.
fn uncached(model: &NotaGen, context: &[u8]) -> Vec<u8> {
    let mut patch: Vec<u8> = Vec::new();
    while patch.len() < 16 && !patch.contains(&2) {
        // Any character that is not special, to be predicted.
        let mut open = patch.clone();
        open.push(b'?');
        open.resize(16, 0);
        let rows: Vec<&[u8]> = context.chunks(16).chain([open.as_slice()]).collect();
        let piece = Patches::from_rows(16, &rows).unwrap();
        let batch = Batch::of_targets(&[piece], 256, |_, place| place + 1 == rows.len()).unwrap();
        let logits = tch::no_grad(|| model.logits(&batch, Mode::EVAL)).unwrap();
        patch.push(logits.get(-1).argmax(-1, false).int64_value(&[]) as u8);
    }
    patch
}

/// A prompt of so many patches, the opening one included.
fn start(patches: usize) -> Start {
    Start { prompt: (1..patches).map(|i| format!("%{i:0>14}\n")).collect(), music: None }
}

#[test]
fn caches_change_nothing_whatever_the_lengths_and_the_kind_of_attention() {
    let model = network();
    // Read in three parts, in two, at once.
    let starts = [start(250), start(2), start(130), start(130), start(1)];
    let expected: Vec<String> = starts
        .iter()
        .map(|start| {
            let patchiliser = Patchiliser::new(16).unwrap();
            let mut context = patchiliser.encode_metadata(&start.prompt).unwrap().characters().to_vec();
            let mut text = start.prompt.concat();
            for _ in 0..2 {
                let mut patch = uncached(&model, &context);
                text += &patchiliser.decode(&patch);
                patch.resize(16, 0);
                context.extend(patch);
            }
            text
        })
        .collect();
    let ends: HashSet<&str> = expected.iter().map(|text| &text[text.len() - 20..]).collect();
    assert!(ends.len() >= 4, "the prompts lead to different texts: {expected:?}");
    for attention in [DecodePath::Each, DecodePath::Batched] {
        for batch_size in [1, 3, 5] {
            let mut generator = Generator::new(&model, Kind::Float).unwrap();
            generator.writer.path = attention;
            let options = Options {
                samples: starts.len(),
                batch_size: Some(batch_size),
                sampling: Sampling::GREEDY,
                starts: starts.to_vec(),
                max_patches: Some(2),
                ..Options::default()
            };
            let mut texts = vec![String::new(); starts.len()];
            let keep = &mut |event: GenerationEvent| {
                if let GenerationEvent::Finished(piece) = event {
                    texts[piece.index] = piece.text.clone();
                }
                ControlFlow::Continue(())
            };
            generator.run(&options, keep).unwrap();
            assert_eq!(texts, expected, "{attention:?}, batches of {batch_size}");
        }
    }
}

/// Pieces drawn in ways of their own that come and go, each long enough to fill its context and slide.
fn drawn(model: &NotaGen, attention: DecodePath, slots: usize) -> Vec<String> {
    let mut generator = Generator::new(model, Kind::Float).unwrap();
    generator.writer.path = attention;
    let options = Options { batch_size: Some(slots), ..Options::default() };
    let mut session = generator.session(&options).unwrap();
    let mut texts = vec![String::new(); 7];
    for index in 0..texts.len() {
        let sampling = Sampling { top_k: [9, 1, 0, 4][index % 4], top_p: 0.9, temperature: 1.0 + 0.2 * index as f64 };
        let line = format!("[r:0/9][V:1]{}|\n", "ABcd ".repeat(3 + index));
        let start = Start { prompt: vec!["%A\n".to_owned()], music: Some(format!("K:C\n{}", line.repeat(9))) };
        let order = Order { seed: 40 + index as u64, sampling, start, max_patches: Some(20 + 11 * index) };
        session.add(index, &order).unwrap();
    }
    while !session.is_empty() {
        session
            .round(&mut |event| match event {
                GenerationEvent::Finished(piece) => texts[piece.index] = piece.text.clone(),
                GenerationEvent::Failed { reason, .. } => panic!("{reason}"),
                _ => (),
            })
            .unwrap();
    }
    texts
}

#[test]
fn the_round_of_a_gpu_writes_what_the_round_of_a_cpu_writes() {
    tch::set_num_threads(1);
    let architecture = Architecture { dropout: 0.0, ..Architecture::sized(64, 2, 2, 64) };
    let model = NotaGen::new(&architecture, Device::Cpu, 5).unwrap();
    // No character ends a patch or a piece: contexts fill.
    let _no_grad = tch::no_grad_guard();
    for (name, parameter) in model.parameters() {
        let _ = parameter.shallow_clone().multiply_scalar_(4.0);
        if name == "char_level_decoder.base.transformer.wte.weight" {
            let _ = parameter.narrow(0, 0, 32).zero_();
        }
    }
    let each = drawn(&model, DecodePath::Each, 3);
    assert!(each.iter().collect::<HashSet<_>>().len() == 7 && each.iter().any(|text| text.len() > 64 * 16), "{each:?}");
    for slots in [1, 3, 7] {
        assert_eq!(drawn(&model, DecodePath::Batched, slots), each, "{slots} slots");
    }
}

#[test]
fn what_a_slot_without_a_patch_holds_stays_as_it_is() {
    let model = network();
    let _no_grad = tch::no_grad_guard();
    let mut generator = Generator::new(&model, Kind::Float).unwrap();
    generator.writer.path = DecodePath::Batched;
    generator.writer.resize(3).unwrap();
    let reading = |slot, start, patches| UnreadPatches { slot, start, characters: vec![b'A'; 16 * patches] };
    let ready = |slot, cached| Ready {
        slot,
        cached,
        given: b"[r:0/".to_vec(),
        uniform: vec![0.5; 16],
        sampling: Sampling::default(),
    };
    let network = &mut generator.writer;
    let mut round = |readings, ready: &[Ready]| network.round(readings, ready, &mut || ()).unwrap();
    let first = round(vec![reading(0, 0, 4), reading(2, 0, 255)], &[ready(0, 4), ready(2, 255)]);
    // Slot 2 writes again and again behind a context that is as full as it gets, slot 1 is empty.
    let second = round(vec![reading(0, 4, 1)], &[ready(0, 5), ready(2, 255)]);
    let third = round(vec![], &[ready(2, 255)]);
    assert_eq!((&first[1], &first[1]), (&second[1], &third[0]));
    let last = round(vec![reading(0, 5, 1), reading(2, 255, 1)], &[ready(0, 6), ready(2, 256)]);
    let mut alone = Generator::new(&model, Kind::Float).unwrap();
    alone.writer.resize(1).unwrap();
    for (slot, written) in [(0, &last[0]), (1, &last[1])] {
        let patches = [6, 256][slot];
        let expected = alone.writer.round(vec![reading(0, 0, patches)], &[ready(0, patches)], &mut || ()).unwrap();
        assert_eq!(&expected[0], written);
    }
}

#[test]
fn a_round_launches_no_more_than_it_did_and_waits_once() {
    /// Of a round of two slots, counted when it was written; a card launches them by two recordings.
    const LAUNCHES: usize = 728;
    let model = network();
    let _no_grad = tch::no_grad_guard();
    let mut generator = Generator::new(&model, Kind::Float).unwrap();
    generator.writer.path = DecodePath::Batched;
    generator.writer.resize(2).unwrap();
    let reading = |slot, start, patches: usize| UnreadPatches { slot, start, characters: vec![b'A'; 16 * patches] };
    let ready = |slot, cached| Ready {
        slot,
        cached,
        given: Vec::new(),
        uniform: vec![0.5; 16],
        sampling: Sampling { top_k: [9, 5][slot], ..Sampling::default() },
    };
    let network = &mut generator.writer;
    network.round(vec![reading(0, 0, 4), reading(1, 0, 2)], &[ready(0, 4), ready(1, 2)], &mut || ()).unwrap();
    let round = vec![reading(0, 4, 1), reading(1, 2, 1)];
    let work = || network.round(round, &[ready(0, 5), ready(1, 3)], &mut || ()).unwrap();
    let (_, calls) = torch_ext::count_calls(work).unwrap();
    let all =
        |names: &[&str]| -> usize { names.iter().filter_map(|name| calls.get(*name)).map(|calls| calls.all).sum() };
    assert_eq!(all(&["aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero"]), 0, "{calls:?}");
    let launches = torch_ext::launched(&calls);
    assert!(launches <= LAUNCHES, "{launches} launches, {LAUNCHES} were enough: {calls:?}");
}

#[test]
fn numbers_made_ahead_are_those_of_their_patch() {
    let limits = Limits { patch_length: 8, characters: 9, seconds: 9.0, patches: None };
    let beginning = Arc::new(Beginning::new(&Patchiliser::new(16).unwrap(), &Start::default(), &limits).unwrap());
    let terms = Terms { seed: 1, number: 2, sampling: Sampling::default(), beginning, limits };
    let mut writing = Writing::new(0, 3, terms);
    assert_eq!(writing.next_numbers(16), random::uniform(1, 2, 3, 0, 16));
    writing.make_ahead(16);
    // A round that has failed is repeated.
    assert_eq!(writing.next_numbers(16), random::uniform(1, 2, 3, 0, 16));
    writing.make_ahead(16);
    writing.track.draws += 1;
    assert_eq!(writing.next_numbers(16), random::uniform(1, 2, 3, 1, 16));
}

#[test]
fn a_batch_that_is_lowered_on_the_way_goes_on_where_it_was() {
    let model = network();
    let options = Options {
        samples: 5,
        batch_size: Some(4),
        starts: vec![start(3), start(40)],
        max_patches: Some(6),
        ..Options::default()
    };
    let texts = |attention: DecodePath, lower_in_round: usize| {
        let mut generator = Generator::new(&model, Kind::Float).unwrap();
        generator.writer.path = attention;
        let (mut texts, mut lowered, mut rounds) = (vec![String::new(); 5], 0, 0);
        let mut run = Run::new(&mut generator, &options).unwrap();
        let _no_grad = tch::no_grad_guard();
        run.writer.resize(4).unwrap();
        let on_event = &mut |event: GenerationEvent| {
            match event {
                GenerationEvent::Finished(piece) => texts[piece.index] = piece.text.clone(),
                GenerationEvent::Lowered { from: 4, to: 2 } => lowered += 1,
                _ => (),
            }
            ControlFlow::Continue(())
        };
        loop {
            let _ = run.refill(on_event);
            if run.slots.iter().all(Option::is_none) {
                break;
            }
            let predicted = run.predict().unwrap();
            rounds += 1;
            if rounds == lower_in_round {
                let error = Error::from(tch::TchError::Torch("CUDA out of memory. Tried to allocate".to_owned()));
                let _ = run.lower(error, on_event).unwrap();
            } else {
                let _ = run.accept(predicted, on_event).unwrap();
            }
        }
        (texts, lowered)
    };
    let (whole, none) = texts(DecodePath::Each, 0);
    assert_eq!(none, 0);
    assert!(whole.iter().all(|text| text.len() > 40));
    assert_eq!(texts(DecodePath::Each, 3), (whole.clone(), 1));
    assert_eq!(texts(DecodePath::Batched, 3), (whole, 1));
}

#[test]
fn caches_that_do_not_fit_are_known_as_such() {
    let mut generator = Generator::new(&network(), Kind::Float).unwrap();
    // More than any address space.
    let error = generator.writer.resize(1 << 40).unwrap_err();
    assert!(error.is_out_of_memory(), "{error}");
}

#[test]
fn an_error_that_is_not_about_memory_is_not_swallowed() {
    let model = network();
    let mut generator = Generator::new(&model, Kind::Float).unwrap();
    let options = Options { samples: 4, batch_size: Some(4), ..Options::default() };
    let mut run = Run::new(&mut generator, &options).unwrap();
    assert!(run.lower(Error::Invalid("something else".to_owned()), &mut |_| ControlFlow::Continue(())).is_err());
}

#[test]
fn the_batch_size_follows_the_memory() {
    let generator = Generator::new(&network(), Kind::Float).unwrap();
    assert!((1..=MOST_SLOTS_CPU).contains(&generator.batch_size_for_memory().unwrap()));
    // Published sizes: NotaGen-large in half precision, its weights and one piece within 6 GB, 128 pieces within 24.
    let large = Architecture::large();
    let weights = 2 * large.parameter_count() as u64;
    let piece = network::bytes_per_slot(&large, Kind::Half);
    assert!(weights + piece < 6_000_000_000 && weights + 128 * piece < 24_000_000_000, "{piece} bytes a piece");
    let slots = |bytes| network::slots_in(bytes, &large, Kind::Half);
    assert_eq!((slots(piece), slots(10 * piece + 1), slots(64 * piece)), (1, 10, 64));
    // Four fifths of what an H100 has beside the weights, and of an H200.
    assert!((512..600).contains(&slots(60_000_000_000)) && slots(108_000_000_000) > 960, "{}", slots(60_000_000_000));
}

#[test]
fn weights_that_are_no_numbers_write_no_music() {
    let model = network();
    let (_, parameter) = model.parameters().last().unwrap();
    let _ = tch::no_grad(|| parameter.shallow_clone().fill_(f64::NAN));
    let mut generator = Generator::new(&model, Kind::Float).unwrap();
    let error = generator.run(&Options::default(), &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("not a finite number"), "{error}");
}
