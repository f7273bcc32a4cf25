//! Reads `<barline>`: repeats, endings, double bars.

use super::state::PartReader;
use super::xml::Node;

impl<'a> PartReader<'a, '_> {
    pub(super) fn barline(&mut self, node: Node<'a>) {
        if node.attribute("location").is_none_or(|location| location == "right") {
            match node.find_text("bar-style") {
                Some("light-light") => self.bar_line = "||",
                Some("light-heavy") => self.bar_line = "|]",
                _ => {}
            }
        }
        if let Some(direction) = node.find("repeat").and_then(|repeat| repeat.attribute("direction")) {
            if direction == "forward" {
                self.repeat_begins = true;
            } else {
                self.bar_line = ":|";
            }
        }
        if let Some(ending) = node.find("ending") {
            if ending.attribute_is("type", "start") {
                let numbers = ending.attribute("number").unwrap_or("1".into()).replace(['.', ' '], "");
                let listed = numbers.split(',').all(|number| crate::text::integer(number).is_some());
                self.ending = if listed { numbers } else { format!("\"{}\"", crate::text::strip(&numbers)) };
            } else if self.bar_line == "|" {
                self.bar_line = "||";
            }
        }
    }
}
