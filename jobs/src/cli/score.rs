//! `score`: the average CLaMP 2 score of a folder of features against another.
use std::path::Path;

use crate::common::failure::Result;
use crate::common::{progress, table};
use crate::stages::score::score;

pub fn run(reference: &Path, generated: &Path, json: bool) -> Result<()> {
    let found = score(reference, generated)?;
    if json {
        progress::output(&found);
    }
    let number = |value: &serde_json::Value| value.as_f64().map_or_else(String::new, |value| format!("{value:.4}"));
    eprintln!("average CLaMP 2 score {} over {} pieces", number(&found["average_clamp2_score"]), found["pieces"]);
    let quantiles = &found["quantiles"];
    let heading = ["lowest", "5 %", "25 %", "median", "75 %", "95 %", "highest"].map(str::to_owned).to_vec();
    let values = ["0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"].map(|portion| number(&quantiles[portion])).to_vec();
    eprint!("{}", table::render(&[heading, values]));
    Ok(())
}
