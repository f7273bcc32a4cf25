//! The tree of an XML document, as the original reads it (Python's ElementTree): elements are found by path, and their text
//! ends at the first child.
//!
//! The tree stores where tags and texts are, in the order of the document. Attributes are parsed when they are used.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::fault::Fault;
use super::markup::{XmlScanner, XmlToken, entities, unescaped};
use crate::text::strip;

/// The largest number that is accepted. Sums of such numbers fit into 64 bits.
const LARGEST: i64 = 1 << 31;

/// A document.
pub(super) struct Tree<'a> {
    text: &'a str,
    elements: Vec<XmlElement>,
    /// Texts that are not a slice of the document: they had entities, or comments within.
    composed: Vec<String>,
    entities: HashMap<&'a str, &'a str>,
}

/// The length of a slice whose text is in [`Tree::composed`], at index `at`.
const COMPOSED: u32 = u32::MAX;

/// A range of bytes of the document. [`Tree::parse`] checks that 32 bits are enough.
#[derive(Clone, Copy, Default)]
struct Slice {
    at: u32,
    length: u32,
}

#[derive(Clone, Copy)]
struct XmlElement {
    /// Between `<` and `>`: the name and the attributes.
    tag: Slice,
    /// Without a namespace's prefix.
    name: Slice,
    /// Up to the first child.
    text: Slice,
    /// The index of the first element after this one and its descendants.
    end: u32,
}

/// An element of the score.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    tree: &'a Tree<'a>,
    place: u32,
}

impl<'a> Tree<'a> {
    /// Parses a document. External entities and DTDs are not fetched.
    pub(super) fn parse(text: &'a str) -> Result<Tree<'a>, Fault> {
        if u32::try_from(text.len()).is_err() {
            return Err(Fault::whole("longer than 4 GiB"));
        }
        let elements = Vec::with_capacity(text.len() / 16);
        let mut tree = Tree { text, elements, composed: Vec::new(), entities: HashMap::new() };
        let mut scanner = XmlScanner::new(text);
        let mut open: Vec<u32> = Vec::new();
        let fault = |at: usize, problem: String| Fault { at: Some(at), problem };
        while let Some(mark) = scanner.next()? {
            match mark {
                XmlToken::Start { tag, .. } | XmlToken::Empty { tag, .. }
                    if open.is_empty() && !tree.elements.is_empty() =>
                {
                    let problem = format!("not well-formed XML: more after the end of <{}>", tree.root().name());
                    return Err(fault(tag.start - 1, problem));
                }
                XmlToken::Start { tag, name } => open.push(tree.push(tag, name)),
                XmlToken::Empty { tag, name } => {
                    tree.push(tag, name);
                }
                XmlToken::End(name) => match open.pop() {
                    Some(place) if text.as_bytes().get(name.clone()) == tree.tag_name(place) => {
                        tree.elements[place as usize].end = tree.elements.len() as u32;
                    }
                    begun => {
                        let end = text.get(name.clone()).unwrap_or_default();
                        let begun = begun.and_then(|place| std::str::from_utf8(tree.tag_name(place)?).ok());
                        let begun = begun.map_or("no element".to_owned(), |begun| format!("<{begun}>"));
                        let problem = format!("not well-formed XML: </{end}> where {begun} should end");
                        return Err(fault(name.start - 2, problem));
                    }
                },
                XmlToken::Text(range) => tree.append(&open, range, None),
                XmlToken::Escaped(range) => {
                    let value = unescaped(text.get(range.clone()).unwrap_or_default(), &tree.entities);
                    let value = value.map_err(|(at, problem)| fault(range.start + at, problem))?;
                    tree.append(&open, range, Some(value));
                }
                XmlToken::Type(range) => tree.entities = entities(text.get(range).unwrap_or_default()),
            }
        }
        match open.pop() {
            Some(open) => {
                let node = Node { tree: &tree, place: open };
                Err(fault(node.at(), format!("<{}> is not closed: the file ends too early", node.name())))
            }
            None if tree.elements.is_empty() => Err(Fault::whole("not XML: it has no element")),
            None => Ok(tree),
        }
    }

    /// The name of an element with its prefix.
    fn tag_name(&self, place: u32) -> Option<&'a [u8]> {
        let XmlElement { tag, name, .. } = self.elements[place as usize];
        self.text.as_bytes().get(tag.at as usize..(name.at + name.length) as usize)
    }

    fn push(&mut self, tag: Range<usize>, name: usize) -> u32 {
        let place = self.elements.len() as u32;
        let name = tag.start..tag.start + name;
        let prefix = self.text.as_bytes()[name.clone()].iter().rposition(|byte| *byte == b':').map_or(0, |at| at + 1);
        let name = slice(name.start + prefix..name.end);
        self.elements.push(XmlElement { tag: slice(tag), name, text: Slice::default(), end: place + 1 });
        place
    }

    /// Adds to the text of the innermost open element, if it has no children yet.
    fn append(&mut self, open: &[u32], range: Range<usize>, value: Option<String>) {
        let Some(place) = open.last().copied().filter(|place| *place as usize + 1 == self.elements.len()) else {
            return;
        };
        let text = self.elements[place as usize].text;
        if value.is_none() && text.length == 0 {
            self.elements[place as usize].text = slice(range);
            return;
        }
        let more = value.as_deref().unwrap_or_else(|| self.text.get(range).unwrap_or_default());
        if text.length == COMPOSED {
            self.composed[text.at as usize].push_str(more);
            return;
        }
        let composed = format!("{}{more}", self.slice(text));
        self.elements[place as usize].text = Slice { at: self.composed.len() as u32, length: COMPOSED };
        self.composed.push(composed);
    }

    /// The outermost element.
    pub(super) fn root(&self) -> Node<'_> {
        Node { tree: self, place: 0 }
    }

    fn slice(&self, slice: Slice) -> &'a str {
        self.text.get(slice.at as usize..(slice.at + slice.length) as usize).unwrap_or_default()
    }
}

fn slice(range: Range<usize>) -> Slice {
    Slice { at: range.start as u32, length: range.end.saturating_sub(range.start) as u32 }
}

impl<'a> Node<'a> {
    fn element(self) -> &'a XmlElement {
        &self.tree.elements[self.place as usize]
    }

    /// The name without a namespace's prefix.
    pub(super) fn name(self) -> &'a str {
        self.tree.slice(self.element().name)
    }

    /// Whether it has this name. Lengths are compared first, since most differ.
    fn is(self, name: &str) -> bool {
        let Slice { at, length } = self.element().name;
        length as usize == name.len()
            && self.tree.text.as_bytes().get(at as usize..(at + length) as usize) == Some(name.as_bytes())
    }

    /// Byte of the text where its tag begins.
    pub(super) fn at(self) -> usize {
        (self.element().tag.at as usize).saturating_sub(1)
    }

    /// A fault of this element.
    pub(super) fn fault(self, problem: impl Into<String>) -> Fault {
        Fault { at: Some(self.at()), problem: problem.into() }
    }

    /// The elements right below it.
    pub(super) fn elements(self) -> impl Iterator<Item = Node<'a>> {
        let end = self.element().end;
        let mut place = self.place + 1;
        std::iter::from_fn(move || {
            let node = Node { tree: self.tree, place };
            (place < end).then(|| {
                place = node.element().end;
                node
            })
        })
    }

    /// The elements of a name right below it.
    pub(super) fn named(self, name: &'a str) -> impl Iterator<Item = Node<'a>> {
        self.elements().filter(move |child| child.is(name))
    }

    /// The elements at a path of two names.
    pub(super) fn below(self, first: &'a str, second: &'a str) -> impl Iterator<Item = Node<'a>> {
        self.named(first).flat_map(move |child| child.named(second))
    }

    /// The first element at a path, such as `notations/ornaments/tremolo`.
    pub(super) fn find(self, path: &str) -> Option<Node<'a>> {
        match path.bytes().position(|byte| byte == b'/').map(|at| (&path[..at], &path[at + 1..])) {
            None => self.elements().find(|child| child.is(path)),
            Some((name, rest)) => self.elements().filter(|child| child.is(name)).find_map(|child| child.find(rest)),
        }
    }

    /// Whether it has an element at this path.
    pub(super) fn has(self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The text up to its first child.
    pub(super) fn text(self) -> &'a str {
        match self.element().text {
            Slice { at, length: COMPOSED } => &self.tree.composed[at as usize],
            text => self.tree.slice(text),
        }
    }

    /// The text of the first element at a path.
    pub(super) fn find_text(self, path: &str) -> Option<&'a str> {
        self.find(path).map(Node::text)
    }

    /// The text at a path, or nothing if there is none or it is empty.
    pub(super) fn filled(self, path: &str) -> Option<&'a str> {
        self.find_text(path).filter(|text| !text.is_empty())
    }

    /// The value of an attribute.
    pub(super) fn attribute(self, name: &str) -> Option<Cow<'a, str>> {
        let XmlElement { tag, name: own, .. } = *self.element();
        let from = own.at + own.length;
        let attributes = self.tree.slice(Slice { at: from, length: tag.at + tag.length - from });
        // Bytes are faster than characters, and every note comes here.
        let bytes = attributes.as_bytes();
        let skip = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            at
        };
        let find = |from: usize, wanted: u8| Some(from + bytes.get(from..)?.iter().position(|byte| *byte == wanted)?);
        let mut at = skip(0);
        loop {
            let equals = find(at, b'=')?;
            let key = attributes.get(at..equals)?.trim_ascii_end();
            let open = skip(equals + 1);
            let quote = *bytes.get(open).filter(|byte| matches!(byte, b'"' | b'\''))?;
            let close = find(open + 1, quote)?;
            if key == name {
                return attributes.get(open + 1..close).map(|value| self.attribute_value(value));
            }
            at = skip(close + 1);
        }
    }

    fn attribute_value(self, value: &'a str) -> Cow<'a, str> {
        if !value.contains(['&', '\n', '\t']) {
            return Cow::Borrowed(value);
        }
        let spaced = value.replace(['\n', '\t'], " ");
        Cow::Owned(unescaped(&spaced, &self.tree.entities).unwrap_or(spaced))
    }

    /// Whether the attribute has this value.
    pub(super) fn attribute_is(self, name: &str, value: &str) -> bool {
        self.attribute(name).is_some_and(|found| found == value)
    }

    /// Its text as a whole number.
    pub(super) fn whole(self) -> Result<i64, Fault> {
        let text = self.text();
        integer(text).ok_or_else(|| self.fault(format!("<{}> is {text:?}, not a whole number", self.name())))
    }

    /// The whole number at a path, if there is one.
    pub(super) fn find_whole(self, path: &str) -> Result<Option<i64>, Fault> {
        self.find(path).map(Node::whole).transpose()
    }

    /// The whole number of an attribute, if there is one.
    pub(super) fn attribute_whole(self, name: &str) -> Result<Option<i64>, Fault> {
        let read = |text: Cow<str>| {
            let problem = || format!("{name} of <{}> is {text:?}, not a whole number", self.name());
            integer(&text).ok_or_else(|| self.fault(problem()))
        };
        self.attribute(name).map(read).transpose()
    }
}

/// A number as Python's `int` reads it, up to [`LARGEST`].
pub(super) fn integer(text: &str) -> Option<i64> {
    let text = strip(text);
    let number = text.parse().ok().or_else(|| crate::text::integer(text)?.try_into().ok())?;
    (-LARGEST..=LARGEST).contains(&number).then_some(number)
}

/// A finite number as Python's `float` reads it.
pub(super) fn real(text: &str) -> Option<f64> {
    strip(text).parse().ok().filter(|number: &f64| number.is_finite())
}
