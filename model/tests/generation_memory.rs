//! What is counted for the memory of generation, against what its tensors take.
#![allow(clippy::unwrap_used)]
use std::ops::ControlFlow;

use model::{
    Architecture, NotaGen,
    generate::{Generator, Options, Start},
};
use tch::{Device, Kind};
use torch_ext::Allocations;

#[test]
fn a_piece_takes_what_is_counted_for_it() {
    let allocations = Allocations::count().unwrap();
    for (sizes, kind) in [
        (Architecture::sized(256, 4, 2, 256), Kind::Float),
        (Architecture::sized(256, 4, 2, 256), Kind::BFloat16),
        (Architecture::sized(1024, 8, 3, 128), Kind::BFloat16),
    ] {
        let model = NotaGen::new(&sizes, Device::Cpu, 1).unwrap();
        let mut generator = Generator::new(&model, kind).unwrap();
        // The longest reading at once comes at the beginning.
        let starts = vec![Start { prompt: vec![format!("%{}\n", "x".repeat(16 * 130))], music: None }];
        let mut peak = |pieces: usize| {
            let options = Options {
                samples: pieces,
                batch_size: Some(pieces),
                starts: starts.clone(),
                max_patches: Some(2),
                max_attempts: 1,
                ..Options::default()
            };
            allocations.read();
            generator.run(&options, &mut |_| ControlFlow::Continue(())).unwrap();
            allocations.read().1 as f64
        };
        let (few, many) = (peak(2), peak(10));
        let ratio = (many - few) / 8.0 / generator.bytes_per_piece() as f64;
        println!("{sizes:?} {kind:?}: {ratio:.3} of what is counted");
        assert!((0.5..1.0).contains(&ratio), "{sizes:?} {kind:?}: {ratio}");
    }
}
