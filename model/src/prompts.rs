//! The prompts that NotaGen is published with: period, composer and instrumentation (the original's
//! `gradio/prompts.txt`), which stand at the top of every piece of its fine-tuning data.
use crate::{Error, Result};

const TABLE: &str = include_str!("prompts.txt");

/// The published prompts, such as `Classical_Beethoven, Ludwig van_Keyboard`.
pub fn published() -> impl Iterator<Item = String> {
    TABLE.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
        let mut fields = line.split(" | ");
        let (period, composer) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let instrumentations = fields.next().unwrap_or_default();
        instrumentations.split("; ").map(move |instrumentation| format!("{period}_{composer}_{instrumentation}"))
    })
}

/// The lines that a piece begins with, each with its line end.
///
/// The error of a prompt that is not published names the nearest one in [`Error::hint`].
///
/// ```
/// let lines = model::prompts::prompt_lines("Classical_Beethoven, Ludwig van_Keyboard")?;
/// assert_eq!(lines, ["%Classical\n", "%Beethoven, Ludwig van\n", "%Keyboard\n"]);
/// # Ok::<(), model::Error>(())
/// ```
pub fn prompt_lines(prompt: &str) -> Result<Vec<String>> {
    let prompt = prompt.trim();
    if published().any(|known| known == prompt) {
        return Ok(lines(prompt));
    }
    // Part by part where it has three parts: a missing first name should not make another instrumentation nearer.
    let like = |a: &str, b: &str| strsim::jaro_winkler(&a.to_lowercase(), &b.to_lowercase());
    let likeness = |known: &String| match prompt.split('_').count() {
        3 => known.split('_').zip(prompt.split('_')).map(|(a, b)| like(a, b)).sum(),
        _ => like(known, prompt),
    };
    let nearest = published().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(Error::Prompt { prompt: prompt.to_owned(), nearest })
}

/// The lines of any prompt, published or not, for networks that were fine-tuned on other prompts.
pub fn lines(prompt: &str) -> Vec<String> {
    prompt.split('_').map(|part| format!("%{part}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_112_published_prompts() {
        assert_eq!(published().count(), 112);
    }

    #[test]
    fn a_prompt_becomes_three_comment_lines() {
        let lines = prompt_lines("Classical_Beethoven, Ludwig van_Keyboard").unwrap();
        assert_eq!(lines, ["%Classical\n", "%Beethoven, Ludwig van\n", "%Keyboard\n"]);
    }

    #[test]
    fn a_misspelt_prompt_gets_the_nearest_one_as_a_hint() {
        let hint = |prompt: &str| prompt_lines(prompt).unwrap_err().hint().unwrap();
        assert_eq!(
            hint("classical_Bethoven, Ludwig van_Keyboard"),
            "did you mean \"Classical_Beethoven, Ludwig van_Keyboard\"?"
        );
        assert_eq!(hint("Baroque_Bach_Choral"), "did you mean \"Baroque_Bach, Johann Sebastian_Choral\"?");
    }
}
