//! Against the network without caches, one whole pass for every character.
use super::network::Attention;
use super::*;
use crate::patches::Patches;
use crate::{Batch, Mode};
use std::collections::HashSet;

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
    for attention in [Attention::Each, Attention::Together] {
        for batch_size in [1, 3, 5] {
            let mut generator = Generator::new(&model, Kind::Float).unwrap();
            generator.network.attention = attention;
            let options = Options {
                samples: starts.len(),
                batch_size: Some(batch_size),
                sampling: Sampling::GREEDY,
                starts: starts.to_vec(),
                max_patches: Some(2),
                ..Options::default()
            };
            let mut texts = vec![String::new(); starts.len()];
            let keep = &mut |event: Event| {
                if let Event::Finished(piece) = event {
                    texts[piece.index] = piece.text.clone();
                }
                ControlFlow::Continue(())
            };
            generator.run(&options, keep).unwrap();
            assert_eq!(texts, expected, "{attention:?}, batches of {batch_size}");
        }
    }
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
    let texts = |lower_in_round: usize| {
        let mut generator = Generator::new(&model, Kind::Float).unwrap();
        let (mut texts, mut lowered, mut rounds) = (vec![String::new(); 5], 0, 0);
        let mut run = Run::new(&mut generator, &options).unwrap();
        let _no_grad = tch::no_grad_guard();
        run.network.resize(4).unwrap();
        let on_event = &mut |event: Event| {
            match event {
                Event::Finished(piece) => texts[piece.index] = piece.text.clone(),
                Event::Lowered { from: 4, to: 2 } => lowered += 1,
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
                let error = Error::Torch(tch::TchError::Torch("CUDA out of memory. Tried to allocate".to_owned()));
                let _ = run.lower(error, on_event).unwrap();
            } else {
                let _ = run.accept(predicted, on_event).unwrap();
            }
        }
        (texts, lowered)
    };
    let (whole, none) = texts(0);
    assert_eq!(none, 0);
    assert!(whole.iter().all(|text| text.len() > 40));
    assert_eq!(texts(3), (whole, 1));
}

#[test]
fn caches_that_do_not_fit_are_known_as_such() {
    let mut generator = Generator::new(&network(), Kind::Float).unwrap();
    // More than any address space.
    let error = generator.network.resize(1 << 40).unwrap_err();
    assert!(out_of_memory(&error), "{error}");
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
