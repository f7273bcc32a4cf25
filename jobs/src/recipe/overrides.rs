//! `--set`: one key of a recipe is another.
use serde_json::Value;

use crate::common::failure::{Failure, Result};
use crate::common::nearest;
use crate::recipe::read::{first_line, plain_name};
use crate::recipe::{Recipe, names};

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
                    text.replace(&format!("expected {name}"), &format!("expected {}", plain_name(name)))
                });
                return Failure::usage(text);
            }
        };
        match quoted.split_first() {
            Some((word, known)) => {
                Failure::usage(format!("unknown {what} `{word}`")).hint(nearest::hint(word, known.iter().copied()))
            }
            None => Failure::usage(text),
        }
    })
}

/// The one stage of this name, or else of this kind.
fn stage(recipe: &Recipe, word: &str) -> Result<(usize, &'static str)> {
    let names = names::of(recipe);
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
    let names = names::of(recipe);
    let known = names.iter().map(String::as_str).chain(TOP);
    Failure::usage(format!("no stage and no key is called `{word}`")).hint(nearest::hint(word, known))
}
