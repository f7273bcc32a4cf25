//! MusicXML to standard ABC.
//!
//! The dialect is that of the original's converter as NotaGen's `data/1_batch_xml2abc.py` calls it (`-d 8
//! -c 6 -x`), byte for byte; `docs/notation.md` lists where it differs, and the scores on which the original
//! fails. Time is linear in the length of the score.

mod attributes;
mod barlines;
mod container;
mod directions;
mod fields;
mod groups;
mod harmony;
mod header;
mod length;
mod lyrics;
mod markup;
mod notes;
mod pitch;
mod reader;
mod score;
mod timeline;
mod titles;
mod tuplets;
mod voices;
mod xml;

use std::collections::HashMap;
use std::fmt;

use markup::{Mark, Scanner};
use reader::{Carried, Reader};
use xml::{Fault, Node, Tree};

use crate::{Error, Result};

/// What to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Lyrics as `w:` lines. The original writes them, and its preprocessing leaves them out.
    pub lyrics: bool,
    /// More text than any score has: what is longer, or unpacks to more, is taken for a trap.
    pub most_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { lyrics: true, most_bytes: container::MOST_BYTES }
    }
}

/// A score, converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Standard ABC, with a blank line at its end.
    pub abc: String,
    /// What was odd about the score, in its order.
    pub warnings: Vec<Warning>,
}

/// A place in a score.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Of the XML, counted from 1; 0 if not known.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The part's `id`.
    pub part: Option<String>,
    /// The measure's number as printed.
    pub measure: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut comma = "";
        if self.line > 0 {
            write!(f, "line {}, column {}", self.line, self.column)?;
            comma = ", ";
        }
        for (name, value) in [("part", &self.part), ("measure", &self.measure)] {
            if let Some(value) = value {
                write!(f, "{comma}{name} {value}")?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// Something odd about a score that could be converted all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What, and what was made of it.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// The file name's end says MusicXML: `.xml`, `.musicxml` or `.mxl`, in any case.
pub fn is_musicxml(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    [".xml", ".musicxml", ".mxl"].iter().any(|end| lower.ends_with(end))
}

/// The bytes say MusicXML: they begin as XML, in UTF-8 or UTF-16, or as an archive.
pub fn looks_like(bytes: &[u8]) -> bool {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let utf16 = [b"\xff\xfe".as_slice(), b"\xfe\xff", b"\0<"].iter().any(|start| bytes.starts_with(start));
    utf16 || start.starts_with(b"<") || start.starts_with(b"PK\x03\x04")
}

/// Converts a score: the bytes of a `.xml`, `.musicxml` or `.mxl` file, told apart by their content.
///
/// `name` is what errors call the score; if it is empty they begin with the place in it.
///
/// # Errors
/// [`Error::MusicXml`] says what cannot be read and where.
pub fn to_abc(bytes: &[u8], name: &str, options: &Options) -> Result<Converted> {
    let error = |place: Place, problem: String| Error::MusicXml { name: name.to_owned(), place, problem };
    let text = container::text(bytes, options.most_bytes).map_err(|fault| error(Place::default(), fault.problem))?;
    let locate = |at: Option<usize>| match at {
        None => Place::default(),
        Some(at) => Lines::new(&text).place(at),
    };
    let tree = Tree::parse(&text).map_err(|fault| error(broken(&text, fault.at.unwrap_or(0)), fault.problem))?;
    let score = tree.root();
    let parts = parts(score).map_err(|fault| error(locate(fault.at), fault.problem))?;
    let mut reached = None;
    let mut carried = Carried::default();
    match convert(score, &parts, options, &mut carried, &mut reached) {
        Ok(abc) => Ok(Converted { abc, warnings: warnings(&text, &parts, carried) }),
        Err((part, fault)) => {
            let part = part.and_then(|part| parts.get(part)).map(|part| part.id.clone());
            let measure = reached.and_then(|measure| measure.attribute("number")).map(|number| number.into_owned());
            Err(error(Place { part, measure, ..locate(fault.at) }, fault.problem))
        }
    }
}

/// The place of a byte at which the XML breaks off, by the elements that are open there.
fn broken(text: &str, at: usize) -> Place {
    let mut open: Vec<&str> = Vec::new();
    let mut scanner = Scanner::new(text);
    while let Ok(Some(mark)) = scanner.next() {
        match mark {
            Mark::Start { tag, .. } if tag.start <= at + 1 => open.extend(text.get(tag)),
            Mark::End(name) if name.start <= at => drop(open.pop()),
            Mark::Start { .. } | Mark::End(_) => break,
            _ => {}
        }
    }
    let value = |name: &str, attribute: &str| {
        open.iter().find_map(|tag| {
            let element = format!("<{tag}/>");
            let tree = Tree::parse(&element).ok()?;
            let value = tree.root().attribute(attribute).filter(|_| tree.root().name() == name)?;
            Some(value.into_owned())
        })
    };
    Place { part: value("part", "id"), measure: value("measure", "number"), ..Lines::new(text).place(at) }
}

/// A part of the score with its measures.
struct Source<'a> {
    id: String,
    node: Node<'a>,
    measures: Vec<Node<'a>>,
}

/// The parts, also of a score that has its parts in each measure.
fn parts(score: Node) -> Result<Vec<Source>, Fault> {
    let id = |node: Node| node.attribute("id").unwrap_or_default().into_owned();
    match score.name() {
        "score-partwise" => {
            let parts = score.named("part");
            Ok(parts.map(|node| Source { id: id(node), node, measures: node.named("measure").collect() }).collect())
        }
        "score-timewise" => {
            let mut parts: Vec<Source> = Vec::new();
            let mut places: HashMap<String, usize> = HashMap::new();
            for node in score.below("measure", "part") {
                let place = *places.entry(id(node)).or_insert_with(|| {
                    parts.push(Source { id: id(node), node, measures: Vec::new() });
                    parts.len() - 1
                });
                parts[place].measures.push(node);
            }
            Ok(parts)
        }
        name => {
            Err(Fault::at(score, format!("not a score: MusicXML begins with <score-partwise>, this with <{name}>")))
        }
    }
}

fn convert<'a>(
    score: Node<'a>,
    parts: &[Source<'a>],
    options: &Options,
    carried: &mut Carried,
    reached: &mut Option<Node<'a>>,
) -> Result<String, (Option<usize>, Fault)> {
    let whole = |fault| (None, fault);
    let software = score.find_text("identification/encoding/software").unwrap_or_default();
    carried.sibelius = software.contains("Sibelius");
    for instrument in score.below("part-list", "score-part").flat_map(|part| part.named("midi-instrument")) {
        if let (Some(id), Some(pitch)) = (instrument.attribute("id"), instrument.find("midi-unpitched"))
            && !pitch.text().is_empty()
        {
            carried.drums.insert(id.into_owned(), pitch.whole().map_err(whole)? - 1);
        }
    }
    let entries = match score.find("part-list") {
        Some(list) => groups::read(list).map_err(whole)?,
        None => Vec::new(),
    };
    let mut next = 1;
    let mut music = String::new();
    let mut voices = header::Voices::default();
    for (index, source) in parts.iter().enumerate() {
        let part = Reader::read(carried, index, source.node, &source.measures, reached);
        let mut part = part.map_err(|fault| (Some(index), fault))?;
        let written = voices::write(&mut part, &mut next, options.lyrics, &mut music);
        voices.add(&part, &written);
    }
    if next == 1 {
        return Err(whole(Fault::at(score, "the score has no notes")));
    }
    let mut abc = voices.header(&titles::fields(score), &entries, carried);
    abc.push_str(&music);
    abc.push('\n');
    Ok(abc)
}

/// Where bytes are in a text.
struct Lines<'a> {
    text: &'a str,
    /// Up to where lines and columns are counted, and what they are there.
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        Lines { text, at: 0, line: 1, column: 1 }
    }

    /// The place of a byte that is not before the last one asked for.
    fn place(&mut self, at: usize) -> Place {
        let between = self.text.get(self.at..at).unwrap_or_default();
        match between.rsplit_once('\n') {
            Some((before, line)) => {
                self.line += 1 + memchr::memchr_iter(b'\n', before.as_bytes()).count();
                self.column = 1 + line.chars().count();
            }
            None => self.column += between.chars().count(),
        }
        self.at = self.at.max(at);
        Place { line: self.line, column: self.column, ..Place::default() }
    }
}

fn warnings(text: &str, parts: &[Source], mut carried: Carried) -> Vec<Warning> {
    carried.notices.sort_by_key(|notice| notice.at);
    let mut lines = Lines::new(text);
    let notices = carried.notices.into_iter();
    let warning = |notice: reader::Notice| Warning {
        place: Place {
            part: parts.get(notice.part).map(|part| part.id.clone()),
            measure: Some(notice.measure),
            ..lines.place(notice.at)
        },
        text: notice.text,
    };
    notices.map(warning).collect()
}
