//! The recipe: as it is written (every key, its type, its default; the JSON schema comes from here), then with its
//! overrides, the rounds of `rl` expanded, every default filled in, and checked.
pub mod check;
mod declare;
mod files;
mod init;
pub mod names;
mod overrides;
pub mod paths;
mod precision;
pub mod read;
mod resolve;
mod resources;
mod rl;
pub mod rounds;
pub mod schema;
mod select;
mod stage;
mod training;
mod values;

use std::path::Path;

use model::Architecture;

pub use init::Init;
pub use precision::Native;
pub use resources::Resources;
pub use rl::{Dpo, DpoKeys, Features, Prefer, Rl, Score};
pub use select::{By, Listen, Select};
pub use stage::{Dimensions, Generate, Model, Preprocess, Recipe, Stage};
pub use training::{M3, Training, check_parts};
pub use values::{Device, Size};

use crate::common::failure::{Failure, Result};

/// A recipe with nothing left out, and its network.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub recipe: Recipe,
    /// The names of the stages as the recipe has them: one that comes in parts has one.
    pub given: Vec<String>,
    /// The network that the training stages train.
    pub architecture: Option<Architecture>,
}

/// Reads a recipe, with its `--set`, and resolves it.
///
/// # Errors
/// A usage failure that names the file and the line, or the stage, and the key.
pub fn load(path: &Path, set: &[String]) -> Result<Resolved> {
    let recipe = overrides::apply(read::read(path)?, set)?;
    resolve(recipe).map_err(|failure| failure.of(&path.display().to_string()))
}

fn resolve(mut recipe: Recipe) -> Result<Resolved> {
    names::check("name", &recipe.name)?;
    if recipe.stages.is_empty() {
        let kinds = Stage::KINDS.join(", ");
        return Err(Failure::usage("`stages` is empty").hint(format!("kinds of stages: {kinds}")));
    }
    let given = names::give(&mut recipe)?;
    rounds::expand(&mut recipe)?;
    resolve::fill_in(&mut recipe);
    let architecture = recipe.model.as_ref().map(resolve::architecture).transpose().map_err(Failure::usage)?;
    check::check(&recipe)?;
    Ok(Resolved { recipe, given, architecture })
}
