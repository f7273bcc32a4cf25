//! Reads `<harmony>`: chord symbols.

use super::fault::Fault;
use super::state::PartReader;
use super::xml::Node;

fn alteration(text: Option<&str>) -> &'static str {
    match text {
        Some("1") => "#",
        Some("-1") => "b",
        _ => "",
    }
}

/// The symbol for a kind of chord, and what is written after the degrees.
fn symbol(kind: &str, text: &str) -> (String, String) {
    let known = match kind {
        "major" => "",
        "minor" => "m",
        "augmented" => "+",
        "diminished" => "dim",
        "dominant" => "7",
        "half-diminished" => "m7b5",
        "none" => text,
        _ => match kind.split_once('-') {
            None => kind,
            Some((triad, addition)) => {
                let triad = match triad {
                    "major" => "maj",
                    "minor" => "m",
                    "diminished" => "dim",
                    "augmented" => "+",
                    "suspended" => "sus",
                    _ => "",
                };
                let addition = match addition {
                    "second" => "2",
                    "fourth" => "4",
                    "seventh" => "7",
                    "sixth" => "6",
                    "ninth" => "9",
                    "11th" => "11",
                    "13th" => "13",
                    _ => "",
                };
                let symbol = format!("{triad}{addition}");
                return if triad == "sus" { (String::new(), symbol) } else { (symbol, String::new()) };
            }
        },
    };
    (known.to_owned(), String::new())
}

impl<'a> PartReader<'a, '_> {
    pub(super) fn harmony(&mut self, node: Node<'a>, next: Option<usize>) -> Result<(), Fault> {
        let Some(target) = self.target(node, next)? else { return Ok(()) };
        let root = node.find_text("root/root-step").unwrap_or_default();
        let root_alteration = alteration(node.find_text("root/root-alter"));
        let kind = node.find("kind");
        let text = kind.and_then(|kind| kind.attribute("text")).unwrap_or_default();
        let (mut kind, end) = symbol(kind.map_or("", Node::text), &text);
        for degree in node.named("degree") {
            kind.push_str(alteration(degree.find_text("degree-alter")));
            kind.push_str(degree.find_text("degree-value").unwrap_or_default());
        }
        let kind = kind.replace("79", "9").replace("713", "13").replace("maj6", "6");
        let step = node.find_text("bass/bass-step").unwrap_or_default();
        let bass = format!("{step}{}", alteration(node.find_text("bass/bass-alter")));
        let slash = if bass.is_empty() { "" } else { "/" };
        self.sign(target.slot, format!("\"{root}{root_alteration}{kind}{end}{slash}{bass}\""), true);
        Ok(())
    }
}
