//! The sampler against PyPI's `samplings` (`golden/make_sampling.py`) and against itself.
use model::sampling::Sampling;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

#[test]
fn distributions_are_the_originals() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sampling.safetensors");
    let golden: HashMap<String, Tensor> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
    let cases = golden["logits"].size()[0];
    assert!(cases > 50);
    for case in 0..cases {
        let sampling = Sampling {
            top_k: golden["top_k"].int64_value(&[case]),
            top_p: golden["top_p"].double_value(&[case]),
            temperature: golden["temperature"].double_value(&[case]),
        };
        let mut ours = sampling.distribution(&golden["logits"].get(case).unsqueeze(0)).unwrap().squeeze();
        let mut theirs = golden["probabilities"].get(case).to_kind(Kind::Float);
        if golden["ties"].int64_value(&[case]) == 1 {
            (ours, theirs) = (ours.sort(-1, true).0, theirs.sort(-1, true).0);
        }
        let difference = (ours - theirs).abs().max().double_value(&[]);
        assert!(difference < 2e-6, "case {case}, {sampling:?}: {difference:e}");
    }
}

/// Pearson's statistic stays under its 99.9 % point: the test fails for a wrong sampler, and never for this seed.
#[test]
fn frequencies_follow_the_probabilities() {
    tch::manual_seed(5);
    let draws = 40_000;
    for sampling in [
        Sampling::default(),
        Sampling { top_k: 0, top_p: 1.0, temperature: 1.0 },
        Sampling { top_k: 40, top_p: 0.95, temperature: 0.7 },
    ] {
        let logits = Tensor::randn([1, 128], (Kind::Float, Device::Cpu)) * 1.5;
        let expected = sampling.distribution(&logits).unwrap().squeeze() * draws as f64;
        let uniform = Tensor::rand([draws], (Kind::Float, Device::Cpu));
        let drawn = sampling.draw(&logits.expand([draws, 128], false), &uniform).unwrap();
        let counts = drawn.bincount::<Tensor>(None, 128).to_kind(Kind::Float);
        let (mut statistic, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
        for c in 0..128 {
            let (e, o) = (expected.double_value(&[c]), counts.double_value(&[c]));
            if e < 5.0 {
                rest = (rest.0 + e, rest.1 + o);
            } else {
                statistic += (o - e) * (o - e) / e;
                cells += 1;
            }
        }
        if rest.0 >= 5.0 {
            statistic += (rest.1 - rest.0).powi(2) / rest.0;
            cells += 1;
        }
        let freedom = f64::from(cells - 1);
        // Wilson and Hilferty's approximation of the 99.9 % point.
        let limit = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
        println!("{sampling:?}: {statistic:.1} of at most {limit:.1}, {cells} cells");
        assert!(cells >= 3 && statistic < limit, "{sampling:?}: {statistic} in {cells} cells");
        assert!(rest.0 > 1e-3 || rest.1 == 0.0, "a character that was cut off is never drawn");
    }
}

#[test]
fn the_two_ends_of_the_unit_interval_draw_characters_that_were_kept() {
    let logits = Tensor::full([2, 128], -30.0, (Kind::Float, Device::Cpu));
    for (c, value) in [(10, 2.0), (64, 1.0), (120, 1.5)] {
        let _ = logits.narrow(1, c, 1).fill_(value);
    }
    let sampling = Sampling { top_k: 3, top_p: 1.0, temperature: 1.0 };
    let drawn = sampling.draw(&logits, &Tensor::from_slice(&[1e-7f32, 1.0 - 1.0 / 16_777_216.0 - 1e-6])).unwrap();
    assert_eq!(Vec::<i64>::try_from(drawn).unwrap(), [10, 120]);
}
