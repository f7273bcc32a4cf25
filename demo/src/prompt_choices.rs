//! Prompts to choose from: first a period, then a composer, then an instrumentation.
use serde::Serialize;
use utoipa::ToSchema;

use crate::Error;

/// A period and its composers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Period {
    /// The period's name.
    pub name: String,
    /// The period's composers, in the order of the prompts.
    pub composers: Vec<Composer>,
}

/// A composer and the instrumentations to choose from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Composer {
    /// The composer's name, family name first.
    pub name: String,
    /// What the composer wrote for.
    pub instrumentations: Vec<String>,
}

/// Groups prompts by period and composer.
///
/// # Errors
/// Names the first prompt that has not three parts, by its line.
pub fn by_period(prompts: &[String]) -> Result<Vec<Period>, Error> {
    let mut periods: Vec<Period> = Vec::new();
    for (at, prompt) in prompts.iter().enumerate() {
        let parts: Vec<&str> = prompt.split('_').map(str::trim).collect();
        let &[period, composer, instrumentation] = parts.as_slice() else {
            return Err(Error::Prompt { line: at + 1, prompt: prompt.clone() });
        };
        let new = || Period { name: period.to_owned(), composers: Vec::new() };
        let period = find_or_add(&mut periods, |known| known.name == period, new);
        let new = || Composer { name: composer.to_owned(), instrumentations: Vec::new() };
        let composer = find_or_add(&mut period.composers, |known| known.name == composer, new);
        find_or_add(&mut composer.instrumentations, |known| known == instrumentation, || instrumentation.to_owned());
    }
    Ok(periods)
}

/// The first entry for which `is` holds, or a new one.
fn find_or_add<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

/// Whether these three lines are one of the choices.
pub fn contains(periods: &[Period], lines: &[String]) -> bool {
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
        let periods = by_period(&prompts).unwrap();
        assert_eq!(
            periods.iter().map(|period| period.name.as_str()).collect::<Vec<_>>(),
            ["Baroque", "Classical", "Romantic"]
        );
        let composers = || periods.iter().flat_map(|period| &period.composers);
        assert_eq!(composers().map(|composer| composer.instrumentations.len()).sum::<usize>(), 112);
        let lines = |prompt: &str| prompt.split('_').map(str::to_owned).collect::<Vec<_>>();
        assert!(prompts.iter().all(|prompt| contains(&periods, &lines(prompt))));
        assert!(!contains(&periods, &lines("Baroque_Bach, Johann Sebastian_Art Song")));
        assert!(!contains(&periods, &lines("Baroque")));
    }

    #[test]
    fn a_prompt_of_another_form_is_named_by_its_line() {
        let error = by_period(&["A_B_C".to_owned(), "A_B".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "prompt 2: \"A_B\" is not Period_Composer_Instrumentation");
    }
}
