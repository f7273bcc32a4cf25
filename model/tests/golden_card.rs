//! What a card computes in 16 bits (one call of flash attention for the patches, equal sequences for the characters), run
//! on a CPU: a process of its own, since from then on the CPU attends as a card does.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
use model::m3::{M3, M3Architecture, M3Batch, Masked};
use model::patches::Patches;
use model::{Architecture, Batch, Mode, NotaGen};
use tch::{Device, Kind, Tensor};

/// Of the passes below, counted when they were written.
const LAUNCHES: usize = 449;

/// Loss and gradients under autocast.
fn learn(parameters: &[(String, Tensor)], kind: Kind, loss: impl Fn() -> Tensor) -> (f64, Vec<Tensor>) {
    let region = torch_ext::Autocast::new(Device::Cpu, kind).unwrap();
    let loss = loss();
    drop(region);
    loss.backward();
    let grads = parameters.iter().filter(|(_, parameter)| parameter.grad().defined());
    let grads = grads.map(|(_, parameter)| {
        let grad = parameter.grad().copy();
        let _ = parameter.grad().zero_();
        grad
    });
    (loss.double_value(&[]), grads.collect())
}

/// Operators besides views and what makes room, such as a card would launch.
fn launches(work: impl FnOnce()) -> usize {
    let ((), calls) = torch_ext::count_calls(work).unwrap();
    torch_ext::launched(&calls)
}

fn compare(parameters: &[(String, Tensor)], loss: impl Fn() -> Tensor) {
    let exact = learn(parameters, Kind::Float, &loss);
    for kind in [Kind::BFloat16, Kind::Half] {
        let found = learn(parameters, kind, &loss);
        assert!((found.0 - exact.0).abs() < 2e-3 * exact.0, "{kind:?}: {} and {} in float32", found.0, exact.0);
        let norm = |grads: &[Tensor]| grads.iter().map(|g| g.norm().double_value(&[]).powi(2)).sum::<f64>().sqrt();
        let apart: Vec<Tensor> = found.1.iter().zip(&exact.1).map(|(a, b)| a - b).collect();
        let (apart, all) = (norm(&apart), norm(&exact.1));
        assert!(apart < 2e-2 * all, "{kind:?}: gradients are {apart} apart, of {all}");
    }
}

/// Patches of 1 to `size` characters.
fn piece(patches: usize, size: usize, shift: usize) -> Patches {
    let row = |i: usize| -> Vec<u8> {
        let length = 2 + (i * 7 + shift) % (size - 1);
        (0..size).map(|t| if t < length { 40 + ((i * 31 + t * 17 + shift) % 80) as u8 } else { 0 }).collect()
    };
    let rows: Vec<Vec<u8>> = (0..patches).map(row).collect();
    Patches::from_rows(size, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

#[test]
fn networks_learn_the_same_as_in_float32() {
    torch_ext::attend_to_sequences_on_cpu().unwrap();
    let architecture = Architecture { dropout: 0.0, ..Architecture::sized(64, 2, 2, 128) };
    let model = NotaGen::new(&architecture, Device::Cpu, 0).unwrap();
    let batch = Batch::new(&[piece(40, 16, 0), piece(13, 16, 5), piece(64, 16, 3)], 64).unwrap();
    compare(model.parameters(), || model.loss(&batch, Mode::EVAL).unwrap().mean().unwrap());
    let once = launches(|| {
        drop(learn(model.parameters(), Kind::BFloat16, || model.loss(&batch, Mode::EVAL).unwrap().mean().unwrap()))
    });
    println!("{once} launches");
    // Two layers of patches and two of characters: whatever the lengths of the pieces and of their patches.
    assert!(once <= LAUNCHES, "{once} launches of a forward and a backward pass, {LAUNCHES} were enough");

    let sizes = M3Architecture {
        patch_size: 64,
        patch_length: 16,
        patch_layers: 2,
        token_layers: 2,
        hidden_size: 128,
        dropout: 0.0,
    };
    let model = M3::new(&sizes, Device::Cpu, 0).unwrap();
    let masked = |patches: usize, shift: usize| Masked {
        input: piece(patches, 64, shift),
        target: piece(patches, 64, shift + 1),
        selected: (0..patches).step_by(2).collect(),
    };
    let batch = M3Batch::new(&[masked(16, 0), masked(5, 9), masked(11, 4)], 64, 16).unwrap();
    compare(model.parameters(), || model.loss(&batch, Mode::EVAL).unwrap().mean().unwrap());
}
