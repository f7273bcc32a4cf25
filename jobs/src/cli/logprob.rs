//! `logprob`: the log-probability of pieces under a model.
use std::path::{Path, PathBuf};

use model::patches::Patchiliser;
use model::{Batch, Mode, NotaGen};
use serde_json::{Value, json};

use crate::cli::arguments::On;
use crate::cli::weights::there;
use crate::common::failure::{Failure, Result};
use crate::common::{loading, progress, table};
use crate::launch::device;

pub fn run(weights: &Path, files: &[PathBuf], on: &On, json: bool) -> Result<()> {
    let model = loading::load(&there(weights)?, None, device::choose(on.device)?)?;
    let patchiliser = Patchiliser::new(usize::try_from(model.architecture().patch_size).unwrap_or(0))?;
    let mut rows = vec![["path", "patches", "tokens", "logp", "loss"].map(str::to_owned).to_vec()];
    for path in files {
        let of_file =
            |failure: Failure| Failure::failed(format!("{}: {failure}", path.display())).hint_if(failure.hint_text());
        let fields = piece(path, &model, &patchiliser).map_err(of_file)?;
        if json {
            progress::output(&fields);
        }
        if fields["truncated"] == true {
            let length = model.architecture().patch_length;
            eprintln!(
                "warning: {}: only its first {length} patches are scored, the network sees no more",
                path.display()
            );
        }
        let number = |key: &str| fields[key].as_f64().map_or_else(String::new, |value| format!("{value:.4}"));
        let [patches, tokens] = ["patches", "tokens"].map(|key| fields[key].to_string());
        rows.push(vec![path.display().to_string(), patches, tokens, number("logp"), number("loss")]);
    }
    eprint!("{}", table::render(&rows));
    Ok(())
}

/// Natural log, the sum over the non-special characters of all patches but the first. A piece longer than the
/// model's context is taken from its beginning.
fn piece(path: &Path, model: &NotaGen, patchiliser: &Patchiliser) -> Result<Value> {
    let _no_grad = tch::no_grad_guard();
    let bytes = std::fs::read(path).map_err(|error| Failure::failed(error.to_string()))?;
    let text = notation::text::decode(&bytes)?;
    let length = model.architecture().patch_length;
    let patches = patchiliser.encode_train(&untagged(text), usize::try_from(length).unwrap_or(0), &mut |_| 0)?;
    let count = patches.len();
    let truncated = patches.row(count - 1) != patchiliser.eos_patch();
    let batch = Batch::new(&[patches], length)?;
    let tokens = batch.tokens;
    let logp = model.log_probability(&batch.to_device(model.device())?, Mode::EVAL)?.f_double_value(&[0])?;
    if !logp.is_finite() {
        return Err(Failure::failed("the weights give what is not a finite number"));
    }
    Ok(json!({
        "path": path,
        "patches": count,
        "tokens": tokens,
        "logp": logp,
        "loss": -logp / tokens as f64,
        "truncated": truncated,
    }))
}

/// Pieces that a model wrote carry the stream tags that the encoding adds.
fn untagged(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("[r:").and_then(|rest| rest.split_once(']')) {
        Some((_, music)) => music.to_owned(),
        None => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_off_and_fields_stay() {
        assert_eq!(untagged("K:C\n[r:0/1][V:1]c|\n[r:1/0][V:1]d|]\n"), "K:C\n[V:1]c|\n[V:1]d|]\n");
    }
}
