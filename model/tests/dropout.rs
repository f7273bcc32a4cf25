//! Dropout. The only test of its program: libtorch's generator is one for all threads.
use model::patches::Patchiliser;
use model::{Architecture, Batch, Checkpointing, Mode, NotaGen};
use tch::{Device, Kind};

#[test]
fn dropout_acts_in_training_alone_and_follows_the_seed() {
    let patchiliser = Patchiliser::new(16).unwrap();
    let piece = patchiliser.encode_train("L:1/8\nK:C\n[V:1]CDEF GABc|[V:2]C8|\n", 64, &mut |_| 0).unwrap();
    let batch = Batch::new(&[piece], 64).unwrap();
    let architecture = Architecture { dropout: 0.1, ..Architecture::sized(64, 2, 2, 128) };
    let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
    let loss = |mode: Mode, seed: i64| {
        tch::manual_seed(seed);
        model.loss(&batch, mode).unwrap().sum.double_value(&[])
    };
    assert_eq!(loss(Mode::EVAL, 1), loss(Mode::EVAL, 2));
    assert_eq!(loss(Mode::TRAIN, 1), loss(Mode::TRAIN, 1));
    assert_ne!(loss(Mode::TRAIN, 1), loss(Mode::TRAIN, 2));
    // Recomputed blocks draw the same dropout twice: the gradient is that of the loss that was computed.
    let mode = Mode { train: true, checkpointing: Some(Checkpointing { seed: 5, autocast: Kind::Float }) };
    let gradient = |seed| {
        for (_, parameter) in model.parameters() {
            parameter.shallow_clone().zero_grad();
        }
        tch::manual_seed(seed);
        let loss = model.loss(&batch, mode).unwrap().sum;
        loss.backward();
        (loss.double_value(&[]), model.parameters()[0].1.grad().copy())
    };
    let (first, second) = (gradient(1), gradient(1));
    assert_eq!(first.0, second.0);
    assert!(first.1.equal(&second.1));
}
