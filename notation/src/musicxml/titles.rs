//! Reads titles, credits, composers and lyricists, for the fields `T:`, `C:` and `Z:`.

use std::borrow::Cow;

use super::xml::Node;
use crate::text::{is_space, strip};

/// The fields, each on a line; `T:Title` if there are none.
pub(super) fn fields(score: Node) -> String {
    let mut fields = String::new();
    let mut add = |letter: char, text: &str| {
        fields.push(letter);
        fields.push(':');
        fields.push_str(text);
        fields.push('\n');
    };
    for path in ["work/work-title", "movement-title"] {
        let title = strip(score.find_text(path).unwrap_or_default());
        if !title.is_empty() {
            title.split('\n').for_each(|line| add('T', line));
        }
    }
    for credit in score.named("credit") {
        let words: String = credit.named("credit-words").map(Node::text).collect();
        add('T', &one_line(&words));
    }
    let persons = || score.below("identification", "creator");
    let is = |node: Node, kinds: &[&str]| node.attribute("type").is_some_and(|kind| kinds.contains(&&*kind));
    for node in persons().filter(|node| is(*node, &["composer"]) && !node.text().is_empty()) {
        node.text().split('\n').for_each(|line| add('C', strip(line)));
    }
    let authors = persons().filter(|node| is(*node, &["lyricist", "transcriber"]));
    for node in authors.chain(score.below("identification", "rights")).filter(|node| !node.text().is_empty()) {
        node.text().split('\n').for_each(|line| add('Z', strip(line)));
    }
    if fields.is_empty() { "T:Title\n".to_owned() } else { fields }
}

/// Replaces line ends and the space around them by a space.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let mut line = String::new();
    let mut rest = text;
    while let Some(from) = rest.find(is_space) {
        let end = rest[from..].find(|c| !is_space(c)).map_or(rest.len(), |length| from + length);
        let space = &rest[from..end];
        line.push_str(&rest[..from]);
        line.push_str(if space.contains(['\n', '\r']) { " " } else { space });
        rest = &rest[end..];
    }
    line.push_str(rest);
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_spaces() {
        assert_eq!(one_line(" a  b \n\n c\r\n"), " a  b c ");
    }
}
