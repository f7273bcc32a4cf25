//! The commands beside running a recipe, one file each.
pub mod check;
pub mod convert;
pub mod demo;
pub mod doctor;
pub mod features;
pub mod generate;
pub mod logprob;
pub mod plan;
pub mod prefer;
pub mod preprocess;
pub mod report;
pub mod schema;
pub mod score;
pub mod select;
pub mod status;
pub mod validate;
pub mod weights;
