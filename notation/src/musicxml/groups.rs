//! Reads the part list: the names of the parts, and the groups in brackets and braces.

use std::collections::HashMap;

use super::fault::Fault;
use super::xml::Node;

/// The deepest nesting of groups; a file with more is damaged.
const DEEPEST: usize = 64;

/// An entry of the part list.
#[derive(Debug)]
pub(super) enum PartListEntry {
    /// A part with its name and abbreviation.
    Part(Names),
    /// Parts that belong together.
    Group { members: Vec<PartListEntry>, brace: bool, bar_lines: bool, names: Names },
}

/// A name and its abbreviation.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(pub String, pub String);

impl Names {
    /// A group's names before these, as the original joins them.
    fn after(&self, before: &Names) -> Names {
        Names(format!("{}:{}", before.0, self.0), format!("{}:{}", before.1, self.1))
    }
}

#[derive(Clone, Default)]
struct PartGroup {
    brace: bool,
    bar_lines: bool,
    names: Names,
}

fn names(node: Node, name: &str, abbreviation: &str) -> Names {
    let text = |path| node.find_text(path).unwrap_or_default().to_owned();
    Names(text(name), text(abbreviation))
}

/// Reads a `<part-list>`. A group that is not closed ends with the list, or where a group with its number begins.
pub(super) fn read(list: Node) -> Result<Vec<PartListEntry>, Fault> {
    // As in the original, where groups overlap, the one that ends first swaps its properties with the innermost one.
    enum GroupEvent<'a> {
        Part(Node<'a>),
        Start(Node<'a>, String),
        Stop(String),
    }
    let mut events = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for node in list.elements() {
        if node.name() != "part-group" {
            events.push(GroupEvent::Part(node));
            continue;
        }
        let number = node.attribute("number").unwrap_or_default().into_owned();
        let place = open.iter().rposition(|other| *other == number);
        if node.attribute_is("type", "start") {
            match place {
                Some(_) => events.push(GroupEvent::Stop(number.clone())),
                None => open.push(number.clone()),
            }
            if open.len() > DEEPEST {
                return Err(node.fault(format!("more than {DEEPEST} part groups in one another")));
            }
            events.push(GroupEvent::Start(node, number));
        } else if let Some(place) = place {
            open.remove(place);
            events.push(GroupEvent::Stop(number));
        }
    }
    events.extend(open.into_iter().rev().map(GroupEvent::Stop));

    let mut known: HashMap<String, PartGroup> = HashMap::new();
    let mut levels: Vec<Vec<PartListEntry>> = vec![Vec::new()];
    let mut order: Vec<String> = Vec::new();
    let mut events = events.into_iter().peekable();
    while let Some(event) = events.next() {
        match event {
            GroupEvent::Part(node) => {
                if let Some(level) = levels.last_mut() {
                    level.push(PartListEntry::Part(names(node, "part-name", "part-abbreviation")));
                }
            }
            GroupEvent::Start(node, number) => {
                let group = PartGroup {
                    brace: node.find_text("group-symbol") == Some("brace"),
                    bar_lines: node.find_text("group-barline") == Some("yes"),
                    names: names(node, "group-name", "group-abbreviation"),
                };
                known.insert(number.clone(), group);
                order.push(number);
                levels.push(Vec::new());
            }
            GroupEvent::Stop(number) => {
                let innermost = order.pop().unwrap_or_default();
                if number != innermost && matches!(events.peek(), Some(GroupEvent::Stop(_))) {
                    let [this, inner] = [&number, &innermost].map(|name| known.remove(name).unwrap_or_default());
                    known.insert(number.clone(), inner);
                    known.insert(innermost, this);
                }
                let PartGroup { brace, bar_lines, names } = known.get(&number).cloned().unwrap_or_default();
                let members = levels.pop().unwrap_or_default();
                if let Some(level) = levels.last_mut() {
                    level.push(PartListEntry::Group { members, brace, bar_lines, names });
                }
            }
        }
    }
    Ok(levels.into_iter().next().unwrap_or_default())
}

/// What the header says about the parts: the signs after `%%score`, and the names of each part.
#[derive(Default)]
pub(super) struct PartLayout {
    pub signs: Vec<String>,
    pub names: Vec<Names>,
    /// The number of parts placed so far.
    parts: usize,
}

impl PartLayout {
    /// `parts` has, for each part and staff, the numbers of the voices in ABC.
    pub(super) fn new(entries: &[PartListEntry], parts: &[Vec<Vec<usize>>]) -> PartLayout {
        let mut layout = PartLayout::default();
        for entry in entries {
            // As in the original, a group ends early if there are no parts left.
            let _ = layout.entry(entry, None, false, parts);
        }
        while layout.parts < parts.len() {
            let _ = layout.part(Names::default(), parts);
        }
        layout
    }

    fn entry(
        &mut self,
        entry: &PartListEntry,
        outer: Option<&Names>,
        bar_lines: bool,
        parts: &[Vec<Vec<usize>>],
    ) -> Option<()> {
        match entry {
            PartListEntry::Part(names) => {
                let names = match outer.filter(|outer| !outer.0.is_empty()) {
                    Some(outer) => names.after(outer),
                    None => names.clone(),
                };
                self.part(names, parts)
            }
            PartListEntry::Group { members, brace, bar_lines: own, names } => {
                // A group with a single part only adds its name.
                if let [PartListEntry::Part(part)] = members.as_slice() {
                    return self.part(names.after(part), parts);
                }
                let bar_lines = bar_lines || *own;
                self.signs.push(if *brace { "{" } else { "[" }.to_owned());
                for member in members {
                    self.entry(member, Some(names), bar_lines, parts)?;
                    if bar_lines {
                        self.signs.push("|".to_owned());
                    }
                }
                if bar_lines {
                    self.signs.pop();
                }
                self.signs.push(if *brace { "}" } else { "]" }.to_owned());
                Some(())
            }
        }
    }

    /// Writes the next part: several voices of a staff in parentheses, several staves in braces.
    fn part(&mut self, names: Names, parts: &[Vec<Vec<usize>>]) -> Option<()> {
        let staves = parts.get(self.parts)?;
        self.parts += 1;
        self.names.push(names);
        let several = staves.len() > 1;
        if several {
            self.signs.push("{".to_owned());
        }
        for (place, staff) in staves.iter().enumerate() {
            if place > 0 {
                self.signs.push("|".to_owned());
            }
            let voices = staff.iter().map(usize::to_string);
            if staff.len() == 1 {
                self.signs.extend(voices);
            } else {
                self.signs.push("(".to_owned());
                self.signs.extend(voices);
                self.signs.push(")".to_owned());
            }
        }
        if several {
            self.signs.push("}".to_owned());
        }
        Some(())
    }
}
