//! Reads the children of a `<note>` element, in one pass.

use super::fault::Fault;
use super::xml::Node;

/// The children of a `<note>`. Where an element occurs twice that should not, the first counts.
pub(super) struct NoteFields<'a> {
    pub node: Node<'a>,
    /// The index of its voice in the part.
    pub slot: usize,
    /// The MusicXML number of its voice.
    pub voice: i64,
    pub staff: i64,
    pub chord: bool,
    pub rest: bool,
    pub beamed: bool,
    pub lyrics: bool,
    pub grace: Option<Node<'a>>,
    pub pitch: Option<Node<'a>>,
    pub unpitched: Option<Node<'a>>,
    pub duration: Option<Node<'a>>,
    pub modification: Option<Node<'a>>,
    pub stem: Option<&'a str>,
    pub accidental: Option<Node<'a>>,
    pub instrument: Option<Node<'a>>,
    pub notehead: Option<Node<'a>>,
    /// The first `<notations>` with ornaments, articulations and so on. The original ignores others.
    pub notations: Option<Node<'a>>,
    pub tie_starts: bool,
    pub tie_stops: bool,
    pub tuplets_start: usize,
    pub tuplets_stop: usize,
    pub slurs: bool,
}

impl<'a> NoteFields<'a> {
    /// `sibelius` numbers the voices of each staff from 1.
    pub(super) fn read(node: Node<'a>, sibelius: bool) -> Result<NoteFields<'a>, Fault> {
        let mut fields = NoteFields {
            node,
            slot: 0,
            voice: 1,
            staff: 1,
            chord: false,
            rest: false,
            beamed: false,
            lyrics: false,
            grace: None,
            pitch: None,
            unpitched: None,
            duration: None,
            modification: None,
            stem: None,
            accidental: None,
            instrument: None,
            notehead: None,
            notations: None,
            tie_starts: false,
            tie_stops: false,
            tuplets_start: 0,
            tuplets_stop: 0,
            slurs: false,
        };
        let (mut voice, mut staff) = (None, None);
        let mut first_notations = true;
        for child in node.elements() {
            match child.name() {
                "pitch" => keep(&mut fields.pitch, child),
                "duration" => keep(&mut fields.duration, child),
                "voice" => keep(&mut voice, child),
                "staff" => keep(&mut staff, child),
                "chord" => fields.chord = true,
                "rest" => fields.rest = true,
                "beam" => fields.beamed |= matches!(child.text(), "continue" | "end"),
                "stem" => fields.stem = fields.stem.or(Some(child.text())),
                "grace" => keep(&mut fields.grace, child),
                "lyric" => fields.lyrics = true,
                "tie" => fields.tie(child),
                "notations" => {
                    fields.spans(child, first_notations);
                    first_notations = false;
                }
                "accidental" => keep(&mut fields.accidental, child),
                "time-modification" => keep(&mut fields.modification, child),
                "unpitched" => keep(&mut fields.unpitched, child),
                "instrument" => keep(&mut fields.instrument, child),
                "notehead" => keep(&mut fields.notehead, child),
                _ => {}
            }
        }
        let number = |node: Option<Node>| match node {
            Some(node) if !node.text().is_empty() => node.whole(),
            _ => Ok(1),
        };
        fields.voice = number(voice)?;
        fields.staff = number(staff)?;
        if sibelius {
            fields.voice += 100 * fields.staff;
        }
        Ok(fields)
    }

    /// Reads `<tie>`, which is for playback, or `<tied>`, which is printed.
    fn tie(&mut self, tie: Node) {
        match tie.attribute("type").as_deref() {
            Some("start") => self.tie_starts = true,
            Some("stop") => self.tie_stops = true,
            _ => {}
        }
    }

    fn spans(&mut self, notations: Node<'a>, first: bool) {
        for child in notations.elements() {
            match child.name() {
                "tied" => self.tie(child),
                "slur" => self.slurs = true,
                "tuplet" => match child.attribute("type").as_deref() {
                    Some("start") => self.tuplets_start += 1,
                    Some("stop") => self.tuplets_stop += 1,
                    _ => {}
                },
                _ if first => self.notations = Some(notations),
                _ => {}
            }
        }
    }
}

fn keep<'a>(place: &mut Option<Node<'a>>, node: Node<'a>) {
    place.get_or_insert(node);
}
