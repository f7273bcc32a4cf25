//! Prompts as linked choices: period, then composer, then instrumentation.
use serde::Serialize;
use utoipa::ToSchema;

use crate::Error;

/// A period and its composers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Period {
    /// Its name.
    pub name: String,
    /// In the order of the list.
    pub composers: Vec<Composer>,
}

/// A composer and what there is of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Composer {
    /// The name, the family's first.
    pub name: String,
    /// What the composer is known to have written for.
    pub instrumentations: Vec<String>,
}

/// The prompts by period and composer.
///
/// # Errors
/// One that has not three parts, by its line.
pub fn linked(prompts: &[String]) -> Result<Vec<Period>, Error> {
    let mut periods: Vec<Period> = Vec::new();
    for (at, prompt) in prompts.iter().enumerate() {
        let parts: Vec<&str> = prompt.split('_').map(str::trim).collect();
        let &[period, composer, instrumentation] = parts.as_slice() else {
            return Err(Error::Prompt { line: at + 1, prompt: prompt.clone() });
        };
        let new = || Period { name: period.to_owned(), composers: Vec::new() };
        let period = entry(&mut periods, |known| known.name == period, new);
        let new = || Composer { name: composer.to_owned(), instrumentations: Vec::new() };
        let composer = entry(&mut period.composers, |known| known.name == composer, new);
        entry(&mut composer.instrumentations, |known| known == instrumentation, || instrumentation.to_owned());
    }
    Ok(periods)
}

/// The entry that `is` it, added if there is none.
fn entry<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

/// Whether these lines are one of the choices.
pub fn has(periods: &[Period], lines: &[String]) -> bool {
    let [period, composer, instrumentation] = lines else { return false };
    periods.iter().filter(|known| known.name == *period).any(|known| {
        let mut composers = known.composers.iter().filter(|known| known.name == *composer);
        composers.any(|known| known.instrumentations.contains(instrumentation))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_prompts_are_all_there_and_nothing_else() {
        let prompts: Vec<String> = model::prompts::published().collect();
        let periods = linked(&prompts).unwrap();
        assert_eq!(
            periods.iter().map(|period| period.name.as_str()).collect::<Vec<_>>(),
            ["Baroque", "Classical", "Romantic"]
        );
        let composers = || periods.iter().flat_map(|period| &period.composers);
        assert_eq!(composers().map(|composer| composer.instrumentations.len()).sum::<usize>(), 112);
        let lines = |prompt: &str| prompt.split('_').map(str::to_owned).collect::<Vec<_>>();
        assert!(prompts.iter().all(|prompt| has(&periods, &lines(prompt))));
        assert!(!has(&periods, &lines("Baroque_Bach, Johann Sebastian_Art Song")));
        assert!(!has(&periods, &lines("Baroque")));
    }

    #[test]
    fn a_prompt_of_another_form_is_named_by_its_line() {
        let error = linked(&["A_B_C".to_owned(), "A_B".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "prompt 2: \"A_B\" is not Period_Composer_Instrumentation");
    }
}
