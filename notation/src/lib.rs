//! ABC notation: what NotaGen reads and writes.
//!
//! [MusicXML](musicxml) becomes standard ABC (one voice after another, as `xml2abc` writes it), which becomes
//! *interleaved* ABC (one line a bar, all voices in it) and the *reduced* form that NotaGen trains on (bars of
//! rests left out); what the model writes goes back the same way. The results are those of `abctoolkit` 0.0.6
//! and of NotaGen's scripts in `data/`, byte for byte, including what those do on odd input; see
//! `docs/notation.md`.
//!
//! Lines are strings that end with their `\n`, as Python's `readlines` gives them.

pub mod abc;
pub mod alignment;
pub mod augment;
mod barlines;
pub mod bars;
pub mod clean;
pub mod corpus;
pub mod duration;
mod enclosed;
mod error;
pub mod export;
pub mod files;
pub mod grouping;
pub mod index;
pub mod interleave;
pub mod key;
pub mod musicxml;
pub mod pack;
pub mod preprocess;
pub mod prompts;
pub mod rests;
pub mod text;
pub mod transliterate;
pub mod transpose;

pub use error::{Error, Result};
pub use key::Key;
