//! Dropout. The only test of its program: libtorch's generator is one for all threads.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
use model::m3::{self, M3, M3Architecture, M3Batch, Masking};
use model::patches::Patchiliser;
use model::{Architecture, Batch, Checkpointing, Mode, NotaGen};
use tch::{Device, Kind, Tensor};

const PIECE: &str = "L:1/8\nK:C\n[V:1]CDEF GABc|[V:2]C8|\n";

fn recomputed(distinct_seeds: bool) -> Mode {
    Mode { train: true, checkpointing: Some(Checkpointing { seed: 5, autocast: Kind::Float, distinct_seeds }) }
}

fn check(loss: &dyn Fn(Mode) -> Tensor, parameters: &[(String, Tensor)]) {
    let seeded = |mode: Mode, seed: i64| {
        tch::manual_seed(seed);
        loss(mode).double_value(&[])
    };
    assert_eq!(seeded(Mode::EVAL, 1), seeded(Mode::EVAL, 2));
    assert_eq!(seeded(Mode::TRAIN, 1), seeded(Mode::TRAIN, 1));
    assert_ne!(seeded(Mode::TRAIN, 1), seeded(Mode::TRAIN, 2));
    // Recomputed blocks draw the same dropout twice: the gradient is that of the loss that was computed.
    let mode = recomputed(true);
    let gradient = |seed| {
        for (_, parameter) in parameters {
            parameter.shallow_clone().zero_grad();
        }
        tch::manual_seed(seed);
        let loss = loss(mode);
        loss.backward();
        (loss.double_value(&[]), parameters[0].1.grad().copy())
    };
    let (first, second) = (gradient(1), gradient(1));
    assert_eq!(first.0, second.0);
    assert!(first.1.equal(&second.1));
    // Blocks over characters shared their seeds with those over patches.
    tch::manual_seed(1);
    assert_ne!(loss(recomputed(false)).double_value(&[]), first.0);
}

/// The seeds of blocks, which a training that is resumed needs again: a network of two and two blocks without dropout leaves
/// the generator as it was seeded for the last one.
fn check_seeds(loss: &dyn Fn(Mode) -> Tensor) {
    let number = || Tensor::rand([1], (Kind::Float, Device::Cpu));
    let _no_grad = tch::no_grad_guard();
    for (distinct_seeds, last_block) in [(false, 1), (true, 3)] {
        let _ = loss(recomputed(distinct_seeds));
        let drawn = number();
        tch::manual_seed(5 * 1_000_003 + last_block);
        assert!(drawn.equal(&number()), "{distinct_seeds}");
    }
}

#[test]
fn dropout_acts_in_training_alone_and_follows_the_seed() {
    let piece = Patchiliser::new(16).unwrap().encode_train(PIECE, 64, &mut |_| 0).unwrap();
    let batch = Batch::new(&[piece], 64).unwrap();
    let architecture = Architecture { dropout: 0.1, ..Architecture::sized(64, 2, 2, 128) };
    let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
    check(&|mode| model.loss(&batch, mode).unwrap().sum, model.parameters());
    let model = NotaGen::new(&Architecture { dropout: 0.0, ..architecture }, Device::Cpu, 0).unwrap();
    check_seeds(&|mode| model.loss(&batch, mode).unwrap().sum);

    let piece = m3::Patchiliser::new(64).unwrap().encode(PIECE).unwrap();
    let batch = M3Batch::new(&[m3::mask(piece, 0.45, Masking::Train, &mut |_| 0)], 64, 512).unwrap();
    let sizes = M3Architecture { patch_layers: 2, token_layers: 2, hidden_size: 128, ..M3Architecture::default() };
    let model = M3::new(&sizes, Device::Cpu, 0).unwrap();
    check(&|mode| model.loss(&batch, mode).unwrap().sum, model.parameters());
    let model = M3::new(&M3Architecture { dropout: 0.0, ..sizes }, Device::Cpu, 0).unwrap();
    check_seeds(&|mode| model.loss(&batch, mode).unwrap().sum);
}
