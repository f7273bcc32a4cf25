//! `validate`: recipes checked without a look at data.
use std::path::PathBuf;

use serde_json::json;

use crate::common::failure::{Failure, Result};
use crate::common::progress;
use crate::recipe;

/// # Errors
/// The failure of the first wrong recipe, after all have been reported.
pub fn run(recipes: &[PathBuf], json: bool) -> Result<()> {
    let mut wrong: Option<Failure> = None;
    for path in recipes {
        match recipe::load(path, &[]) {
            Ok(resolved) => {
                if json {
                    progress::output(&json!({ "path": path, "valid": true, "stages": resolved.given }));
                }
                eprintln!("{}: valid, {} stages: {}", path.display(), resolved.given.len(), resolved.given.join(", "));
            }
            Err(failure) => {
                if json {
                    let error = failure.to_string();
                    progress::output(
                        &json!({ "path": path, "valid": false, "error": error, "hint": failure.hint_text() }),
                    );
                }
                // The last is reported by who called.
                if let Some(earlier) = wrong.replace(failure) {
                    earlier.report(false);
                }
            }
        }
    }
    wrong.map_or(Ok(()), Err)
}
