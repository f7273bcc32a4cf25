//! Measures what a training step takes of the memory, against what is counted for it.
//!
//!     cargo run --release -p trainer --example memory -- small|medium|large|tiny [LENGTH] [fp32|bf16|fp16] [again] [drop] [pieces=N] [predict=N]
#[path = "../tests/common/step.rs"]
mod step;

use std::error::Error;

use model::Architecture;
use trainer::{Dtype, memory::StepShape};

fn main() -> Result<(), Box<dyn Error>> {
    let mut architecture = Architecture::sized(64, 2, 1, 128);
    let mut how = StepShape {
        pieces: 1,
        predicted: None,
        precision: Dtype::Fp32,
        checkpointing: false,
        dropout: false,
        offload: false,
        cpu: true,
    };
    for word in std::env::args().skip(1) {
        match (word.as_str(), word.split_once('=')) {
            ("tiny", _) => {}
            ("small", _) => architecture = Architecture::small(),
            ("medium", _) => architecture = Architecture::medium(),
            ("large", _) => architecture = Architecture::large(),
            ("fp32", _) => how.precision = Dtype::Fp32,
            ("bf16", _) => how.precision = Dtype::Bf16,
            ("fp16", _) => how.precision = Dtype::Fp16,
            ("again", _) => how.checkpointing = true,
            ("drop", _) => how.dropout = true,
            (_, Some(("pieces", number))) => how.pieces = number.parse()?,
            (_, Some(("predict", number))) => how.predicted = Some(number.parse()?),
            (length, _) => architecture.patch_length = length.parse()?,
        }
    }
    println!("{}", step::measure(&torch_ext::Allocations::count()?, &architecture, &how)?);
    Ok(())
}
