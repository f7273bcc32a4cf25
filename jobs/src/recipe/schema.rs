//! The JSON schema of recipes, and what the keys say of their effect in it.
use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value};

use super::{Recipe, Stage};

/// The extension of a key's schema that says what of it decides the result: `none`, or, of a path, the `content` alone.
const EFFECT: &str = "effect";

static MARKED: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Recipe).to_value());

/// The schema for editors.
pub fn schema() -> Schema {
    let mut schema = schemars::schema_for!(Recipe);
    let strip = |schema: &mut Schema| drop(schema.remove(EFFECT));
    RecursiveTransform(strip).transform(&mut schema);
    schema
}

/// The schema of a kind of stage.
fn of_kind(kind: &str) -> Option<&'static Value> {
    let kinds = MARKED["$defs"]["Stage"]["oneOf"].as_array()?;
    let one = kinds.iter().find_map(|one| one["properties"].get(kind))?;
    let definition = one["$ref"].as_str()?.rsplit('/').next()?;
    MARKED["$defs"].get(definition)
}

/// The keys of a kind of stage, each with its schema.
fn keys(kind: &str) -> Option<&'static Map<String, Value>> {
    of_kind(kind)?["properties"].as_object()
}

/// The keys of a resolved stage that decide its result.
///
/// # Errors
/// A value cannot be written as JSON.
pub fn deciding(stage: &Stage) -> serde_json::Result<BTreeMap<String, Value>> {
    let Value::Object(settings) = serde_json::to_value(stage)?[stage.kind()].take() else { return Ok(BTreeMap::new()) };
    let keys = keys(stage.kind());
    let decides = |key: &String| keys.and_then(|keys| keys.get(key)).is_none_or(|key| key.get(EFFECT).is_none());
    Ok(settings.into_iter().filter(|(key, _)| decides(key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PAGE: &str = include_str!("../../../docs/recipes.md");

    /// A value that a key does not have by itself, by its schema.
    fn other(schema: &Value) -> Value {
        if let Some(definition) = schema["$ref"].as_str() {
            return other_than(&schema["default"], &MARKED["$defs"][definition.rsplit('/').next().unwrap()]);
        }
        if let Some(one_of) = schema["anyOf"].as_array() {
            return other(&one_of[0]);
        }
        other_than(&schema["default"], schema)
    }

    fn other_than(default: &Value, schema: &Value) -> Value {
        let word = match &schema["type"] {
            Value::Array(words) => &words[0],
            word => word,
        };
        let wanted: Vec<Value> = match word.as_str() {
            Some("integer") => vec![json!(7)],
            Some("number") => vec![json!(0.4)],
            Some("boolean") => vec![json!(true), json!(false)],
            Some("string") => vec![json!("other")],
            Some("array") => vec![json!(["other"])],
            Some("object") => vec![with(schema, schema["properties"].as_object().unwrap().keys())],
            _ => schema["oneOf"].as_array().unwrap().iter().map(|one| one["const"].clone()).collect(),
        };
        wanted.into_iter().rev().find(|value| value != default).unwrap()
    }

    /// An object with the keys that it cannot do without.
    fn least(schema: &Value) -> Value {
        with(schema, schema["required"].as_array().into_iter().flatten().map(|key| key.as_str().unwrap()))
    }

    fn with<K: ToString>(schema: &Value, keys: impl Iterator<Item = K>) -> Value {
        keys.map(|key| key.to_string()).map(|key| (key.clone(), other(&schema["properties"][&key]))).collect()
    }

    #[test]
    fn a_key_decides_the_result_as_it_is_declared() {
        let (mut with, mut without) = (0, 0);
        for kind in Stage::KINDS {
            let least = least(of_kind(kind).unwrap());
            let stage = |keys: &Value| serde_json::from_value::<Stage>(json!({ *kind: keys })).unwrap();
            let before = deciding(&stage(&least)).unwrap();
            for (key, schema) in keys(kind).unwrap() {
                let mut changed = least.clone();
                changed[key] = match least.get(key) {
                    None => other(schema),
                    Some(_) => json!("something"),
                };
                let decides = deciding(&stage(&changed)).unwrap() != before;
                assert_eq!(decides, schema.get(EFFECT).is_none(), "{kind}.{key}");
                *(if decides { &mut with } else { &mut without }) += 1;
            }
        }
        assert!(with > 100 && without > 60, "{with} {without}");
    }

    /// The text below a heading that names a kind.
    fn section(kind: &str) -> &'static str {
        let sections = PAGE.split("\n## ");
        let named = |section: &&str| section.lines().next().unwrap().split(", ").any(|name| name == kind);
        sections.clone().find(named).unwrap_or_else(|| panic!("docs/recipes.md has no heading {kind}"))
    }

    #[test]
    fn the_page_on_recipes_has_every_key_and_its_default() {
        let mut defaults = 0;
        for kind in Stage::KINDS {
            let others = match *kind {
                "m3" => section("finetune"),
                "dpo" => section("rl"),
                _ => "",
            };
            let own = [section(kind), others].concat();
            let text = [&own, section("Top level")].concat();
            for (key, schema) in keys(kind).unwrap() {
                let name = format!("`{key}`");
                assert!(text.contains(&name), "docs/recipes.md does not say what {key} of {kind} is");
                let default = match &schema["default"] {
                    Value::Number(number) => number.as_f64().unwrap().to_string(),
                    Value::Bool(value) => value.to_string(),
                    Value::String(word) => word.clone(),
                    _ => continue,
                };
                let rows = own.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
                let said: Vec<&str> = rows
                    .filter(|(keys, _)| keys.contains(&name))
                    .map(|(_, rest)| rest.split(" | ").next().unwrap())
                    .collect();
                let is_default = |word: &str| match word.parse::<f64>() {
                    Ok(number) => number.to_string() == default,
                    Err(_) => word == default,
                };
                let right = said.iter().flat_map(|said| said.split([',', ' ', ':', ';'])).any(is_default);
                assert!(right || said.is_empty(), "docs/recipes.md: {key} of {kind} is {default}, not {said:?}");
                defaults += usize::from(right);
            }
        }
        assert!(defaults > 40, "{defaults}");
    }
}
