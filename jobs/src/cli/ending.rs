//! How the commands end that do the work of a stage.
use serde_json::Value;

use crate::common::failure::{Failure, Result};
use crate::common::progress::{self, Reporter};
use crate::plan::state::Outputs;
use crate::stages::context::Ended;

/// Shows what came of the work, or says what of it is kept.
///
/// # Errors
/// An interruption.
pub fn finish(ended: Ended, mut reporter: Reporter, json: bool, kept: &str) -> Result<Outputs> {
    reporter.end();
    match ended {
        Ended::Done(outputs) => {
            if json {
                progress::output(&Value::Object(outputs.facts.clone()));
            }
            Ok(outputs)
        }
        Ended::Interrupted => {
            Err(Failure::interrupted(format!("stopped by a signal; the {kept} that are done are kept"))
                .hint("the same command goes on from here"))
        }
    }
}
