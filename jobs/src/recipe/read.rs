//! Reads a recipe file: every mistake names its place and the nearest key.
use std::fs;
use std::path::Path;

use serde_saphyr::Error as Yaml;

use crate::common::failure::{Failure, Result};
use crate::common::nearest;
use crate::recipe::Recipe;

/// Reads a recipe, as it is given.
///
/// # Errors
/// A usage failure that names file, line and column, and the nearest key for one that is unknown.
pub fn read(path: &Path) -> Result<Recipe> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::usage(format!("{}: no such recipe", path.display())),
        _ => Failure::usage(format!("cannot read {}: {error}", path.display())),
    })?;
    serde_saphyr::from_str(&text).map_err(|error| describe(path, &text, &error))
}

fn describe(path: &Path, text: &str, error: &Yaml) -> Failure {
    let error = error.without_snippet();
    let at = error.location().filter(|at| at.line() > 0);
    let place = match at {
        Some(at) => format!("{}:{}:{}", path.display(), at.line(), at.column()),
        None => path.display().to_string(),
    };
    let key = at.and_then(|at| key_at(text, at.line(), at.column()));
    let of_key = |message: String| match &key {
        Some(key) => format!("`{key}`: {message}"),
        None => message,
    };
    let a_stage = "for example `- finetune: {…}`";
    let (message, hint) = match error {
        Yaml::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), Some(nearest::hint(field, expected.iter().copied())))
        }
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown {} `{variant}`", what(expected)), Some(nearest::hint(variant, expected.iter().copied())))
        }
        Yaml::SerdeMissingField { field, .. } => (format!("missing key `{field}`"), None),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => (format!("the key `{key}` is given twice"), None),
        Yaml::DuplicateMappingKey { .. } => ("a key is given twice".to_owned(), None),
        Yaml::Message { msg, .. } => (of_key(msg.clone()), None),
        Yaml::InvalidScalar { ty, .. } => (of_key(format!("this is not {}", plain_name(ty))), None),
        Yaml::SerdeInvalidValue { unexpected, expected, .. } | Yaml::SerdeInvalidType { unexpected, expected, .. } => {
            (of_key(format!("{unexpected} where {} should be", plain_name(expected))), None)
        }
        Yaml::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | Yaml::ExpectedStringKeyForExternallyTaggedEnum { .. }
        | Yaml::ExpectedMappingEndAfterEnumVariantValue { .. } => {
            ("a stage is a map with one key, its kind".to_owned(), Some(a_stage.to_owned()))
        }
        Yaml::Unexpected { expected: "mapping start", .. } => {
            (of_key("a map of keys should be here".to_owned()), Some(a_stage.to_owned()))
        }
        Yaml::Unexpected { expected, .. } => (of_key(format!("{} should be here", plain_name(expected))), None),
        other => {
            let text = first_line(other);
            // The location is told in front, in the form that editors and terminals open.
            (text.split(" at line ").next().unwrap_or(&text).to_owned(), None)
        }
    };
    Failure::usage(format!("{place}: {message}")).hint_if(hint)
}

/// The key whose value begins at a place of the text, or that begins there itself.
fn key_at(text: &str, line: u64, column: u64) -> Option<String> {
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let at = line.char_indices().nth(usize::try_from(column).ok()?.checked_sub(1)?).map_or(line.len(), |(at, _)| at);
    let (before, after) = line.split_at(at);
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(word) = before.trim_end().strip_suffix(':') {
        let start = word.rfind(|c| !in_word(c)).map_or(0, |at| at + 1);
        return (start < word.len()).then(|| word[start..].to_owned());
    }
    let end = after.find(|c| !in_word(c))?;
    (end > 0 && after[end..].starts_with(':')).then(|| after[..end].to_owned())
}

/// Names of Rust's types and serde's expectations, for people who write YAML.
pub(super) fn plain_name(expected: &str) -> &str {
    match expected {
        "u64" => "a whole number of at least 0",
        "a nonzero u64" => "a whole number of at least 1",
        "f64" | "float" | "f32" => "a number",
        "string scalar" => "a single value",
        "sequence start" => "a list",
        "bool" | "boolean" => "true or false",
        other => other,
    }
}

fn what(expected: &[&str]) -> &'static str {
    if expected.contains(&"finetune") { "kind of stage" } else { "word" }
}

/// What the parser says, in one line.
pub(super) fn first_line(error: &Yaml) -> String {
    error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned()
}
