//! Which stages the command line asks for.
use std::ops::RangeInclusive;

use crate::common::failure::{Failure, Result};
use crate::recipe::names;

/// Which stages the command line asks for.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Selection {
    /// The first stage.
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// The last stage.
    #[arg(long, value_name = "STAGE")]
    pub until: Option<String>,
    /// The one stage.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["from", "until"])]
    pub only: Option<String>,
}

impl Selection {
    pub(super) fn range(&self, names: &[String]) -> Result<RangeInclusive<usize>> {
        let find =
            |option, word: &Option<String>| word.as_ref().map(|word| names::find(names, option, word)).transpose();
        if let Some(only) = find("--only", &self.only)? {
            return Ok(only);
        }
        let from = find("--from", &self.from)?.map_or(0, |stages| *stages.start());
        let until = find("--until", &self.until)?.map_or(names.len().saturating_sub(1), |stages| *stages.end());
        if from > until {
            return Err(Failure::usage("--from names a later stage than --until"));
        }
        Ok(from..=until)
    }
}
