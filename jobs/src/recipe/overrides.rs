//! Reads a recipe file and applies `--set`: every mistake names its place and the nearest key.
use std::{fs, ops::RangeInclusive, path::Path};

use serde_json::Value;
use serde_saphyr::Error as Yaml;

use crate::{
    common::{
        failure::{Failure, Result},
        near,
    },
    recipe::Recipe,
};

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
            (format!("unknown key `{field}`"), Some(near::hint(field, expected.iter().copied())))
        }
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown {} `{variant}`", what(expected)), Some(near::hint(variant, expected.iter().copied())))
        }
        Yaml::SerdeMissingField { field, .. } => (format!("missing key `{field}`"), None),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => (format!("the key `{key}` is given twice"), None),
        Yaml::DuplicateMappingKey { .. } => ("a key is given twice".to_owned(), None),
        Yaml::Message { msg, .. } => (of_key(msg.clone()), None),
        Yaml::InvalidScalar { ty, .. } => (of_key(format!("this is not {}", in_words(ty))), None),
        Yaml::SerdeInvalidValue { unexpected, expected, .. } | Yaml::SerdeInvalidType { unexpected, expected, .. } => {
            (of_key(format!("{unexpected} where {} should be", in_words(expected))), None)
        }
        Yaml::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | Yaml::ExpectedStringKeyForExternallyTaggedEnum { .. }
        | Yaml::ExpectedMappingEndAfterEnumVariantValue { .. } => {
            ("a stage is a map with one key, its kind".to_owned(), Some(a_stage.to_owned()))
        }
        Yaml::Unexpected { expected: "mapping start", .. } => {
            (of_key("a map of keys should be here".to_owned()), Some(a_stage.to_owned()))
        }
        Yaml::Unexpected { expected, .. } => (of_key(format!("{} should be here", in_words(expected))), None),
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
fn in_words(expected: &str) -> &str {
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

/// Applies `--set PATH=VALUE` in order. The path starts with a top-level key, or with the name or the kind of a
/// stage; the value is YAML.
///
/// # Errors
/// A usage failure that quotes the setting.
pub fn apply(mut recipe: Recipe, settings: &[String]) -> Result<Recipe> {
    for setting in settings {
        recipe = apply_one(&recipe, setting).map_err(|failure| {
            let text = format!("--set {setting}: {failure}");
            Failure::usage(text).hint_if(failure.hint_text())
        })?;
    }
    Ok(recipe)
}

fn apply_one(recipe: &Recipe, setting: &str) -> Result<Recipe> {
    let (path, value) = setting
        .split_once('=')
        .ok_or_else(|| Failure::usage("no `=`").hint("write --set finetune.learning_rate=2e-5"))?;
    let value: Value = serde_saphyr::from_str(value)
        .map_err(|error| Failure::usage(format!("the value is not YAML: {}", first_line(&error))))?;
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    let broken = |error: &dyn std::fmt::Display| Failure::failed(format!("the recipe cannot be edited: {error}"));
    let mut document = serde_json::to_value(recipe).map_err(|error| broken(&error))?;
    let (mut node, rest) = match keys.split_first() {
        Some((first, rest)) if TOP.contains(first) => (&mut document[*first], rest),
        Some((first, rest)) if !rest.is_empty() => {
            let (index, kind) = stage(recipe, first)?;
            (&mut document["stages"][index][kind], rest)
        }
        Some((first, _)) => {
            stage(recipe, first)?;
            return Err(Failure::usage(format!("`{first}` is a stage: one of its keys can be set"))
                .hint(format!("write --set {first}.KEY=VALUE")));
        }
        None => return Err(Failure::usage("no key")),
    };
    for (depth, key) in rest.iter().enumerate() {
        if node.is_null() || node.is_string() && path.starts_with("model.") && depth == 0 {
            // `model: large` and `model.dropout=0` together are large without dropout.
            *node = match node.take() {
                Value::String(size) => serde_json::json!({ "base": size }),
                _ => Value::Object(serde_json::Map::new()),
            };
        }
        let Value::Object(map) = node else {
            return Err(Failure::usage(format!("`{}` has no keys", keys[..keys.len() - rest.len() + depth].join("."))));
        };
        node = map.entry(*key).or_insert(Value::Null);
    }
    *node = value;
    from_json(document)
}

const TOP: [&str; 7] = ["name", "seed", "device", "precision", "model", "resources", "stages"];

fn from_json(document: Value) -> Result<Recipe> {
    serde_json::from_value(document).map_err(|error| {
        let text = error.to_string();
        let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        let what = match quoted.as_slice() {
            _ if text.starts_with("unknown field") => "key",
            _ if text.starts_with("unknown variant") => "word",
            _ => {
                let text = ["a nonzero u64", "u64", "f64", "bool"].iter().fold(text.clone(), |text, name| {
                    text.replace(&format!("expected {name}"), &format!("expected {}", in_words(name)))
                });
                return Failure::usage(text);
            }
        };
        match quoted.split_first() {
            Some((word, known)) => {
                Failure::usage(format!("unknown {what} `{word}`")).hint(near::hint(word, known.iter().copied()))
            }
            None => Failure::usage(text),
        }
    })
}

/// The one stage of this name, or else of this kind.
fn stage(recipe: &Recipe, word: &str) -> Result<(usize, &'static str)> {
    let names = names(recipe);
    if let Some(index) = names.iter().position(|name| name == word) {
        return Ok((index, recipe.stages[index].kind()));
    }
    let of_kind: Vec<usize> = (0..names.len()).filter(|index| recipe.stages[*index].kind() == word).collect();
    match of_kind.as_slice() {
        [index] => Ok((*index, recipe.stages[*index].kind())),
        [] => Err(unknown_start(recipe, word)),
        many => {
            let names: Vec<&str> = many.iter().map(|index| names[*index].as_str()).collect();
            Err(Failure::usage(format!("several stages are of the kind `{word}`"))
                .hint(format!("name one of them: {}", names.join(", "))))
        }
    }
}

fn unknown_start(recipe: &Recipe, word: &str) -> Failure {
    let names = names(recipe);
    let known = names.iter().map(String::as_str).chain(TOP);
    Failure::usage(format!("no stage and no key is called `{word}`")).hint(near::hint(word, known))
}

/// The names of the stages: as given, else the kind, numbered from the second of the same kind on.
pub fn names(recipe: &Recipe) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stage in &recipe.stages {
        let kind = stage.kind();
        let given = stage.clone().name().clone();
        let name = given.unwrap_or_else(|| {
            let earlier = names.len() - names.iter().filter(|name| !numbered(name, kind)).count();
            if earlier == 0 { kind.to_owned() } else { format!("{kind}-{}", earlier + 1) }
        });
        names.push(name);
    }
    names
}

fn numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok())
    })
}

fn first_line(error: &Yaml) -> String {
    error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned()
}

/// The stages that `--from`, `--until` or `--only` means: one, or all parts of one that comes in parts.
pub fn find_stages(names: &[String], option: &str, word: &str) -> Result<RangeInclusive<usize>> {
    let is_part = |name: &String| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (first, last) = (names.iter().position(is_part), names.iter().rposition(is_part));
    first.zip(last).map(|(first, last)| first..=last).ok_or_else(|| {
        Failure::usage(format!("{option} {word}: no stage is called `{word}`"))
            .hint(near::hint(word, names.iter().map(String::as_str)))
    })
}
