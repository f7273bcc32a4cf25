//! What stages are called.
use std::ops::RangeInclusive;

use crate::common::failure::{Failure, Result};
use crate::common::nearest;
use crate::recipe::Recipe;

/// The names of the stages: as given, else the kind, numbered from the second of the same kind on.
pub fn of(recipe: &Recipe) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stage in &recipe.stages {
        let kind = stage.kind();
        let name = stage.name().cloned().unwrap_or_else(|| {
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

/// Gives every stage its name.
///
/// # Errors
/// A usage failure: a name is no plain word, or two stages have the same.
pub fn give(recipe: &mut Recipe) -> Result<Vec<String>> {
    let names = of(recipe);
    for (index, (stage, name)) in recipe.stages.iter_mut().zip(&names).enumerate() {
        check("the name of a stage", name)?;
        if names[..index].contains(name) {
            return Err(
                Failure::usage(format!("two stages are called `{name}`")).hint("give one of them another `name`")
            );
        }
        stage.set_name(name);
    }
    Ok(names)
}

/// A name becomes a folder and part of a file's name.
pub fn check(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::usage(format!("{what} `{name}` is not a plain word (letters, digits, - _ .)")));
    }
    Ok(())
}

/// The stages that `--from`, `--until` or `--only` means: one, or all parts of one that comes in parts.
pub fn find(names: &[String], option: &str, word: &str) -> Result<RangeInclusive<usize>> {
    let is_part = |name: &String| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (first, last) = (names.iter().position(is_part), names.iter().rposition(is_part));
    first.zip(last).map(|(first, last)| first..=last).ok_or_else(|| {
        Failure::usage(format!("{option} {word}: no stage is called `{word}`"))
            .hint(nearest::hint(word, names.iter().map(String::as_str)))
    })
}
