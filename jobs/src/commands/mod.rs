//! The commands beside running a recipe, one file each.
pub mod doctor;
pub mod generate;
pub mod logprob;
pub mod plan;
pub mod preprocess;
pub mod schema;
pub mod status;
pub mod validate;
pub mod weights;
