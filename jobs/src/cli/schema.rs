//! `schema`: the JSON schema of recipes, for editors.
use crate::common::failure::{Failure, Result};
use crate::recipe::schema::schema;

pub fn run() -> Result<()> {
    let text = serde_json::to_string_pretty(&schema()).map_err(|error| Failure::failed(error.to_string()))?;
    println!("{text}");
    Ok(())
}
