//! The recipe: as it is written (every key, its type, its default; the JSON schema comes from here), then with its
//! overrides, the rounds of `rl` expanded, every default resolved, and checked.
mod number;
pub mod overrides;
pub mod paths;
mod precision;
pub mod resolve;
mod resources;
mod rl;
pub mod rounds;
mod select;
mod stage;
mod training;
mod values;

pub use number::Portion;
pub use precision::{Dtype, Native, Precision};
pub use resources::Resources;
pub use rl::{Dpo, Features, Prefer, Rl, Score};
pub use select::{By, Listen, Select};
pub use stage::{Dimensions, Generate, Model, Preprocess, Recipe, Stage};
pub use training::{Course, KeyAugmentation, M3, Schedule, Training, check_parts};
pub use values::{Device, Keys, Sampling, Size};
