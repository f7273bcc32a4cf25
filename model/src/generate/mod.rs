//! Writing music: many pieces at once, each as the original's `inference/inference.py` writes it alone.
//!
//! The pieces share a batch of slots. In each round the patch decoder reads the newest patch of every slot, with the
//! keys and values of all earlier ones kept; the character decoder then writes the next patch of every slot character
//! by character. A piece that ends leaves its slot to the next one at once, and a piece whose context is full reads
//! the shortened one in parts beside the others.
mod attention;
mod batched;
mod each;
mod generator;
mod network;
mod options;
mod random;
mod run;
mod session;
#[cfg(test)]
mod tests;
mod track;
mod writer;

use notation::rests;

pub use batched::CudaGraphStats;
pub use generator::Generator;
pub use options::{GenerationEvent, Options, Summary, WrittenPiece};
pub use session::{Order, Paused, Session};
pub use track::{Failure, Outcome, Start, tag_lines};

/// A piece counts where its rests can be put back and a network can be trained on it.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(abc: &str) -> std::result::Result<(), String> {
    if abc.contains('\0') {
        return Err("a NUL character in its text".to_owned());
    }
    rests::unreduce_text(abc).map(drop).map_err(|error| error.to_string())
}
