//! MusicXML to standard ABC.
//!
//! The dialect is that of the original's converter as NotaGen's `data/1_batch_xml2abc.py` calls it (`-d 8
//! -c 6 -x`), byte for byte; `docs/notation.md` lists where it differs, and the scores on which the original
//! fails. Time is linear in the length of the score.

mod attributes;
mod barlines;
mod container;
mod directions;
mod fault;
mod fields;
mod groups;
mod harmony;
mod header;
mod length;
mod lyrics;
mod markup;
mod notes;
mod pitch;
mod position;
mod reader;
mod score;
mod state;
mod timeline;
mod titles;
mod tuplets;
mod voices;
mod xml;

use std::collections::HashMap;
use std::fmt;

use fault::Fault;
use markup::{XmlScanner, XmlToken};
use position::LineCounter;
use state::{Oddity, PartReader, ScoreState};
use xml::{Node, Tree};

use crate::{Error, Result};

pub use position::SourcePosition;

/// How to convert a score.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MusicXmlOptions {
    /// Whether to write lyrics, as `w:` lines. The original writes them; its preprocessing removes them.
    pub lyrics: bool,
    /// The longest XML that is read, in bytes, unpacked. A small archive may unpack to gigabytes on purpose.
    pub most_bytes: u64,
}

impl Default for MusicXmlOptions {
    fn default() -> MusicXmlOptions {
        MusicXmlOptions { lyrics: true, most_bytes: container::MOST_BYTES }
    }
}

/// A converted score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedAbc {
    /// Standard ABC, with a blank line at its end.
    pub abc: String,
    /// What was odd about the score, in the order of the file.
    pub warnings: Vec<MusicXmlWarning>,
}

/// Something odd about a score that could be converted all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MusicXmlWarning {
    /// Where it is.
    pub position: SourcePosition,
    /// What is odd, and what was made of it.
    pub text: String,
}

impl fmt::Display for MusicXmlWarning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.text)
    }
}

/// Whether a file name has the extension of MusicXML: `.xml`, `.musicxml` or `.mxl`, in any case.
pub fn is_musicxml(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    [".xml", ".musicxml", ".mxl"].iter().any(|end| lower.ends_with(end))
}

/// Whether a file's contents begin as MusicXML does: as XML, in UTF-8 or UTF-16, or as a ZIP archive.
pub fn looks_like(bytes: &[u8]) -> bool {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let utf16 = [b"\xff\xfe".as_slice(), b"\xfe\xff", b"\0<"].iter().any(|start| bytes.starts_with(start));
    utf16 || start.starts_with(b"<") || start.starts_with(b"PK\x03\x04")
}

/// Converts the bytes of a `.xml`, `.musicxml` or `.mxl` file to standard ABC.
///
/// Errors begin with `name`; if it is empty, with the position in the file.
///
/// # Errors
/// [`Error::MusicXml`] says what cannot be read, and where.
///
/// ```
/// use notation::musicxml::{MusicXmlOptions, to_abc};
///
/// let score = r#"<score-partwise><part id="P1"><measure number="1">
///     <attributes><divisions>1</divisions></attributes>
///     <note><pitch><step>G</step><octave>4</octave></pitch><duration>4</duration></note>
/// </measure></part></score-partwise>"#;
/// let converted = to_abc(score.as_bytes(), "", &MusicXmlOptions::default())?;
/// assert!(converted.abc.ends_with("V:1\n G8 | %1\n\n"));
/// # Ok::<(), notation::Error>(())
/// ```
pub fn to_abc(bytes: &[u8], name: &str, options: &MusicXmlOptions) -> Result<ConvertedAbc> {
    let error =
        |position: SourcePosition, problem: String| Error::MusicXml { name: name.to_owned(), position, problem };
    let text =
        container::text(bytes, options.most_bytes).map_err(|fault| error(SourcePosition::default(), fault.problem))?;
    let locate = |at: Option<usize>| match at {
        None => SourcePosition::default(),
        Some(at) => LineCounter::new(&text).position(at),
    };
    let tree = Tree::parse(&text).map_err(|fault| error(broken(&text, fault.at.unwrap_or(0)), fault.problem))?;
    let score = tree.root();
    let parts = parts(score).map_err(|fault| error(locate(fault.at), fault.problem))?;
    let mut reached = None;
    let mut state = ScoreState::default();
    match convert(score, &parts, options, &mut state, &mut reached) {
        Ok(abc) => Ok(ConvertedAbc { abc, warnings: warnings(&text, &parts, state) }),
        Err((part, fault)) => {
            let part = part.and_then(|part| parts.get(part)).map(|part| part.id.clone());
            let measure = reached.and_then(|measure| measure.attribute("number")).map(|number| number.into_owned());
            Err(error(SourcePosition { part, measure, ..locate(fault.at) }, fault.problem))
        }
    }
}

/// The position of a byte at which the XML breaks off. Part and measure are the elements that are open there.
fn broken(text: &str, at: usize) -> SourcePosition {
    let mut open: Vec<&str> = Vec::new();
    let mut scanner = XmlScanner::new(text);
    while let Ok(Some(token)) = scanner.next() {
        match token {
            XmlToken::Start { tag, .. } if tag.start <= at + 1 => open.extend(text.get(tag)),
            XmlToken::End(name) if name.start <= at => drop(open.pop()),
            XmlToken::Start { .. } | XmlToken::End(_) => break,
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
    SourcePosition {
        part: value("part", "id"),
        measure: value("measure", "number"),
        ..LineCounter::new(text).position(at)
    }
}

/// A `<part>` with its measures.
struct PartElement<'a> {
    id: String,
    node: Node<'a>,
    measures: Vec<Node<'a>>,
}

/// The parts of a score. A timewise score has them in each measure.
fn parts(score: Node) -> Result<Vec<PartElement>, Fault> {
    let id = |node: Node| node.attribute("id").unwrap_or_default().into_owned();
    match score.name() {
        "score-partwise" => {
            let parts = score.named("part");
            Ok(parts
                .map(|node| PartElement { id: id(node), node, measures: node.named("measure").collect() })
                .collect())
        }
        "score-timewise" => {
            let mut parts: Vec<PartElement> = Vec::new();
            let mut indices: HashMap<String, usize> = HashMap::new();
            for node in score.below("measure", "part") {
                let index = *indices.entry(id(node)).or_insert_with(|| {
                    parts.push(PartElement { id: id(node), node, measures: Vec::new() });
                    parts.len() - 1
                });
                parts[index].measures.push(node);
            }
            Ok(parts)
        }
        name => Err(score.fault(format!("not a score: MusicXML begins with <score-partwise>, this with <{name}>"))),
    }
}

/// Writes the whole piece. Errors come with the index of the part they are in.
fn convert<'a>(
    score: Node<'a>,
    parts: &[PartElement<'a>],
    options: &MusicXmlOptions,
    state: &mut ScoreState,
    reached: &mut Option<Node<'a>>,
) -> Result<String, (Option<usize>, Fault)> {
    let whole = |fault| (None, fault);
    let software = score.find_text("identification/encoding/software").unwrap_or_default();
    state.sibelius = software.contains("Sibelius");
    for instrument in score.below("part-list", "score-part").flat_map(|part| part.named("midi-instrument")) {
        if let (Some(id), Some(pitch)) = (instrument.attribute("id"), instrument.find("midi-unpitched"))
            && !pitch.text().is_empty()
        {
            state.drums.insert(id.into_owned(), pitch.whole().map_err(whole)? - 1);
        }
    }
    let entries = match score.find("part-list") {
        Some(list) => groups::read(list).map_err(whole)?,
        None => Vec::new(),
    };
    let mut next = 1;
    let mut music = String::new();
    let mut voices = header::VoiceHeader::default();
    for (index, element) in parts.iter().enumerate() {
        let part = PartReader::read(state, index, element.node, &element.measures, reached);
        let mut part = part.map_err(|fault| (Some(index), fault))?;
        let written = voices::write(&mut part, &mut next, options.lyrics, &mut music);
        voices.add(&part, &written);
    }
    if next == 1 {
        return Err(whole(score.fault("the score has no notes")));
    }
    let mut abc = voices.header(&titles::fields(score), &entries, state);
    abc.push_str(&music);
    abc.push('\n');
    Ok(abc)
}

fn warnings(text: &str, parts: &[PartElement], mut state: ScoreState) -> Vec<MusicXmlWarning> {
    state.oddities.sort_by_key(|oddity| oddity.at);
    let mut lines = LineCounter::new(text);
    let warning = |oddity: Oddity| MusicXmlWarning {
        position: SourcePosition {
            part: parts.get(oddity.part).map(|part| part.id.clone()),
            measure: Some(oddity.measure),
            ..lines.position(oddity.at)
        },
        text: oddity.text,
    };
    state.oddities.into_iter().map(warning).collect()
}
