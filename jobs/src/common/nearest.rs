//! The known word nearest to a mistyped one.

/// A hint for an unknown word: the nearest known one, or all of them.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro_winkler(word, other);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    let close = strsim::damerau_levenshtein(word, best) <= 2 && word.len() > 3;
    (close || likeness(best) > 0.85).then_some(*best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_slip_finds_its_key_and_a_foreign_word_lists_all() {
        let keys = ["learning_rate", "batch_size", "epochs"];
        assert_eq!(hint("learning_rat", keys), "did you mean `learning_rate`?");
        assert_eq!(hint("batchsize", keys), "did you mean `batch_size`?");
        assert_eq!(hint("colour", keys), "known: learning_rate, batch_size, epochs");
    }
}
