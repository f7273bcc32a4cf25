//! Converts scores between MusicXML, MIDI and the forms of ABC that NotaGen reads and writes.
//!
//! - [`musicxml`] converts MusicXML to *standard* ABC, one voice after another, as `xml2abc` writes it.
//! - [`interleave`] converts that to *interleaved* ABC, a line for each bar with all voices in it.
//! - [`rests`] *reduces* it: NotaGen trains on ABC without the bars of resting voices. It also puts them back.
//! - [`preprocess`] does all of this for a folder of scores.
//! - [`export`] converts ABC, also what NotaGen wrote, to MusicXML and MIDI.
//!
//! The results are those of `abctoolkit` 0.0.6 and of NotaGen's scripts in `data/`, byte for byte, also on odd input;
//! see `docs/notation.md`.
//!
//! Lines are strings that end with their `\n`, as Python's `readlines` returns them.

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
pub mod rests;
pub mod text;
pub mod transliterate;
pub mod transpose;

pub use error::{Error, Result};
pub use key::Key;
