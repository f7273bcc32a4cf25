//! What is counted for a training's memory, against what its tensors take.
#![allow(clippy::unwrap_used)]
#[path = "common/step.rs"]
mod step;

use model::Architecture;
use torch_ext::Allocations;
use trainer::{Dtype, memory::StepShape};

#[test]
fn memory_is_as_counted() {
    // Threads that wait spin, and take the processors from the tests beside this one.
    tch::set_num_threads(1);
    let allocations = Allocations::count().unwrap();
    let plain = StepShape {
        pieces: 1,
        predicted: None,
        precision: Dtype::Fp32,
        checkpointing: false,
        dropout: false,
        offload: false,
        cpu: true,
    };
    let half = StepShape { precision: Dtype::Bf16, ..plain };
    let (wide, deep) = (Architecture::sized(32, 2, 1, 192), Architecture::sized(64, 3, 2, 128));
    let mut ratios = Vec::new();
    for sizes in [&wide, &deep] {
        for how in [
            plain,
            half,
            StepShape { checkpointing: true, pieces: 2, ..plain },
            StepShape { checkpointing: true, pieces: 2, ..half },
            StepShape { dropout: true, ..plain },
            StepShape { predicted: Some(40), pieces: 2, ..half },
        ] {
            let measured = step::measure(&allocations, sizes, &how).unwrap();
            println!("{measured}");
            ratios.push((measured.ratio(), measured.to_string()));
        }
    }
    for (ratio, measured) in ratios {
        assert!((0.93..1.07).contains(&ratio), "{measured}");
    }
}
