//! Writes decorations, words and chord symbols as MusicXML.

use super::xml::XmlWriter;
use crate::abc::score::Tempo;

/// An element of `<notations>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotationElement {
    Articulation(&'static str),
    Ornament(&'static str),
    Technical(&'static str),
    Fingering,
    Fermata,
    Arpeggio,
    TrillLine(bool),
    Tremolo(&'static str),
    Line(&'static str, bool),
}

/// The element for a note's decoration; `None` if MusicXML has none.
pub(super) fn notation(name: &str) -> Option<NotationElement> {
    use NotationElement::{Articulation, Ornament, Technical};
    Some(match name {
        "." => Articulation("staccato"),
        ">" | "accent" | "emphasis" => Articulation("accent"),
        "wedge" => Articulation("staccatissimo"),
        "tenuto" => Articulation("tenuto"),
        "breath" => Articulation("breath-mark"),
        "marcato" | "^" => Articulation("strong-accent"),
        "slide" => Articulation("scoop"),
        "trill" | "T" => Ornament("trill-mark"),
        "turn" => Ornament("turn"),
        "invertedturn" => Ornament("inverted-turn"),
        "uppermordent" | "pralltriller" => Ornament("inverted-mordent"),
        "lowermordent" | "mordent" => Ornament("mordent"),
        "upbow" => Technical("up-bow"),
        "downbow" => Technical("down-bow"),
        "plus" => Technical("stopped"),
        "open" => Technical("open-string"),
        "snap" => Technical("snap-pizzicato"),
        "thumb" => Technical("thumb-position"),
        "0" | "1" | "2" | "3" | "4" | "5" => NotationElement::Fingering,
        "fermata" | "invertedfermata" => NotationElement::Fermata,
        "arpeggio" => NotationElement::Arpeggio,
        "trill(" => NotationElement::TrillLine(true),
        "trill)" => NotationElement::TrillLine(false),
        "/" => NotationElement::Tremolo("1"),
        "//" => NotationElement::Tremolo("2"),
        "///" => NotationElement::Tremolo("3"),
        "~(" => NotationElement::Line("glissando", true),
        "~)" => NotationElement::Line("glissando", false),
        "-(" => NotationElement::Line("slide", true),
        "-)" => NotationElement::Line("slide", false),
        _ => return None,
    })
}

impl NotationElement {
    pub fn write(self, name: &str, xml: &mut XmlWriter) {
        let (outer, inner) = match self {
            NotationElement::Articulation(inner) => ("articulations", inner),
            NotationElement::Ornament(inner) => ("ornaments", inner),
            NotationElement::Technical(inner) => ("technical", inner),
            NotationElement::Fingering => {
                xml.open("technical", &[]);
                xml.leaf("fingering", &[], name);
                return xml.close();
            }
            NotationElement::Fermata => return xml.empty("fermata", &[("type", "upright")]),
            NotationElement::Arpeggio => return xml.empty("arpeggiate", &[]),
            NotationElement::TrillLine(start) => {
                xml.open("ornaments", &[]);
                if start {
                    xml.empty("trill-mark", &[]);
                }
                xml.empty("wavy-line", &[("type", if start { "start" } else { "stop" })]);
                return xml.close();
            }
            NotationElement::Tremolo(strokes) => {
                xml.open("ornaments", &[]);
                xml.leaf("tremolo", &[("type", "single")], strokes);
                return xml.close();
            }
            NotationElement::Line(tag, start) => {
                let line = if tag == "slide" { "solid" } else { "wavy" };
                let kind = if start { "start" } else { "stop" };
                return xml.empty(tag, &[("type", kind), ("number", "1"), ("line-type", line)]);
            }
        };
        xml.open(outer, &[]);
        xml.empty(inner, &[]);
        xml.close();
    }
}

/// Writes a direction: its content, then the staff and its effect on playback.
pub(super) fn direction(
    xml: &mut XmlWriter,
    placement: &str,
    staff: Option<usize>,
    sound: Option<(&str, &str)>,
    content: impl FnOnce(&mut XmlWriter),
) {
    xml.open("direction", &[("placement", placement)]);
    content(xml);
    if let Some(staff) = staff {
        xml.number("staff", staff);
    }
    if let Some(sound) = sound {
        xml.empty("sound", &[sound]);
    }
    xml.close();
}

/// Writes a direction with one type.
fn simple(
    xml: &mut XmlWriter,
    placement: &str,
    staff: Option<usize>,
    sound: Option<(&str, &str)>,
    content: impl FnOnce(&mut XmlWriter),
) {
    direction(xml, placement, staff, sound, |xml| {
        xml.open("direction-type", &[]);
        content(xml);
        xml.close();
    });
}

pub(super) fn words(xml: &mut XmlWriter, text: &str, above: bool, staff: Option<usize>) {
    simple(xml, if above { "above" } else { "below" }, staff, None, |xml| xml.leaf("words", &[], text));
}

pub(super) fn rehearsal(xml: &mut XmlWriter, text: &str, staff: Option<usize>) {
    simple(xml, "above", staff, None, |xml| xml.leaf("rehearsal", &[], text));
}

/// Writes dynamics, hairpins and signs.
pub(super) fn decoration(xml: &mut XmlWriter, name: &str, staff: Option<usize>) {
    let (attribute, sign, text) = match name {
        "coda" => ("coda", true, "coda"),
        "segno" => ("segno", true, "segno"),
        "fine" => ("fine", false, "Fine"),
        "D.S." => ("dalsegno", false, "D.S."),
        "D.C." | "dacapo" => ("dacapo", false, "D.C."),
        "dacoda" => ("tocoda", false, "To Coda"),
        "ped" | "ped-up" => {
            let kind = if name == "ped" { "start" } else { "stop" };
            return simple(xml, "below", staff, None, |xml| xml.empty("pedal", &[("type", kind)]));
        }
        "8va(" | "8va)" | "8vb(" | "8vb)" => {
            let above = name.starts_with("8va");
            let kind = match (name.ends_with(')'), above) {
                (true, _) => "stop",
                (false, true) => "down",
                (false, false) => "up",
            };
            let content = |xml: &mut XmlWriter| xml.empty("octave-shift", &[("type", kind), ("size", "8")]);
            return simple(xml, if above { "above" } else { "below" }, staff, None, content);
        }
        _ if name.ends_with(['(', ')']) => {
            let kind = match (name.ends_with(')'), name.starts_with(['<', 'c'])) {
                (true, _) => "stop",
                (false, true) => "crescendo",
                (false, false) => "diminuendo",
            };
            return simple(xml, "below", staff, None, |xml| xml.empty("wedge", &[("type", kind)]));
        }
        dynamic => {
            return simple(xml, "below", staff, None, |xml| {
                xml.open("dynamics", &[]);
                xml.empty(dynamic, &[]);
                xml.close();
            });
        }
    };
    let value = match attribute {
        "coda" | "tocoda" => "coda",
        "segno" | "dalsegno" => "segno",
        _ => "yes",
    };
    simple(xml, "above", staff, Some((attribute, value)), |xml| {
        if sign { xml.empty(text, &[]) } else { xml.leaf("words", &[], text) }
    });
}

pub(super) fn tempo(xml: &mut XmlWriter, tempo: &Tempo, staff: Option<usize>) {
    let sound = decimals(tempo.quarters);
    direction(xml, "above", staff, Some(("tempo", &sound)), |xml| {
        if !tempo.text.is_empty() {
            xml.open("direction-type", &[]);
            xml.leaf("words", &[], &tempo.text);
            xml.close();
        }
        if let Some((n, d, speed)) = tempo.beat {
            // 3/8 is a dotted quarter; other fractions are no single note.
            let (unit, dotted) = match n {
                3 => (d / 2, true),
                _ => (d, false),
            };
            const UNITS: [&str; 10] =
                ["whole", "half", "quarter", "eighth", "16th", "32nd", "64th", "128th", "256th", "512th"];
            let unit = UNITS.get(unit.max(1).ilog2() as usize).copied().unwrap_or("quarter");
            xml.open("direction-type", &[]);
            xml.open("metronome", &[]);
            xml.leaf("beat-unit", &[], unit);
            if dotted {
                xml.empty("beat-unit-dot", &[]);
            }
            xml.leaf("per-minute", &[], &decimals(speed));
            xml.close();
            xml.close();
        }
    });
}

fn decimals(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Kinds of chords as they are written after the root. The longest match counts.
const KINDS: [(&str, &str); 62] = [
    ("maj7", "major-seventh"),
    ("Maj7", "major-seventh"),
    ("ma7", "major-seventh"),
    ("M7", "major-seventh"),
    ("m7b5", "half-diminished"),
    ("mi7b5", "half-diminished"),
    ("min7", "minor-seventh"),
    ("mi7", "minor-seventh"),
    ("m7", "minor-seventh"),
    ("-7", "minor-seventh"),
    ("dim7", "diminished-seventh"),
    ("o7", "diminished-seventh"),
    ("aug7", "augmented-seventh"),
    ("+7", "augmented-seventh"),
    ("maj6", "major-sixth"),
    ("ma6", "major-sixth"),
    ("M6", "major-sixth"),
    ("min6", "minor-sixth"),
    ("mi6", "minor-sixth"),
    ("m6", "minor-sixth"),
    ("maj9", "major-ninth"),
    ("Maj9", "major-ninth"),
    ("ma9", "major-ninth"),
    ("M9", "major-ninth"),
    ("min9", "minor-ninth"),
    ("mi9", "minor-ninth"),
    ("m9", "minor-ninth"),
    ("maj11", "major-11th"),
    ("Maj11", "major-11th"),
    ("ma11", "major-11th"),
    ("M11", "major-11th"),
    ("min11", "minor-11th"),
    ("mi11", "minor-11th"),
    ("m11", "minor-11th"),
    ("maj13", "major-13th"),
    ("Maj13", "major-13th"),
    ("ma13", "major-13th"),
    ("M13", "major-13th"),
    ("min13", "minor-13th"),
    ("mi13", "minor-13th"),
    ("m13", "minor-13th"),
    ("sus2", "suspended-second"),
    ("sus4", "suspended-fourth"),
    ("sus", "suspended-fourth"),
    ("maj", "major"),
    ("Maj", "major"),
    ("ma", "major"),
    ("M", "major"),
    ("min", "minor"),
    ("mi", "minor"),
    ("m", "minor"),
    ("aug", "augmented"),
    ("dim", "diminished"),
    ("o", "diminished"),
    ("+", "augmented"),
    ("-", "minor"),
    ("13", "dominant-13th"),
    ("11", "dominant-11th"),
    ("9", "dominant-ninth"),
    ("7", "dominant"),
    ("6", "major-sixth"),
    ("", "major"),
];

struct Harmony<'a> {
    root: (char, i8),
    kind: &'static str,
    /// Added degrees: number and alteration.
    degrees: Vec<(&'a str, i8)>,
    bass: Option<(char, i8)>,
}

fn root(text: &str) -> Option<((char, i8), &str)> {
    let letter = text.chars().next().filter(|c| ('A'..='G').contains(c))?;
    let rest = &text[1..];
    let (alter, length) = match rest.as_bytes().first() {
        Some(b'#') => (1, 1),
        Some(b'b') => (-1, 1),
        Some(b'=') => (0, 1),
        _ => (0, 0),
    };
    Some(((letter, alter), &rest[length..]))
}

fn parse(text: &str) -> Option<Harmony<'_>> {
    // `(…)` at the end is ignored.
    let text = text.split_once('(').map_or(text, |(text, _)| text.trim_end());
    let (root_note, mut rest) = root(text)?;
    let (written, kind) = KINDS.iter().filter(|(kind, _)| rest.starts_with(kind)).max_by_key(|(kind, _)| kind.len())?;
    rest = &rest[written.len()..];
    if let Some(after) = ["sus2", "sus4", "sus"].iter().find_map(|sus| rest.strip_prefix(sus)) {
        rest = after;
    }
    let mut degrees = Vec::new();
    loop {
        let (alter, after) = match rest.as_bytes().first() {
            Some(b'#') => (1, &rest[1..]),
            Some(b'b') => (-1, &rest[1..]),
            Some(b'=') => (0, &rest[1..]),
            _ => (0, rest),
        };
        let Some(degree) =
            ["11", "13", "2", "4", "5", "6", "7", "9"].into_iter().find(|degree| after.starts_with(degree))
        else {
            break;
        };
        degrees.push((&after[..degree.len()], alter));
        rest = &after[degree.len()..];
    }
    let mut bass = None;
    if let Some(after) = rest.strip_prefix('/') {
        let (note, after) = root(after)?;
        (bass, rest) = (Some(note), after);
    }
    rest.is_empty().then_some(Harmony { root: root_note, kind, degrees, bass })
}

/// Writes a chord symbol, or, if the text is none, words.
pub(super) fn harmony(xml: &mut XmlWriter, text: &str, staff: Option<usize>) {
    let Some(harmony) = parse(text) else { return words(xml, text, true, staff) };
    xml.open("harmony", &[]);
    let note = |xml: &mut XmlWriter, tag: &'static str, names: [&'static str; 2], (letter, alter): (char, i8)| {
        xml.open(tag, &[]);
        xml.number(names[0], letter);
        if alter != 0 {
            xml.number(names[1], alter);
        }
        xml.close();
    };
    note(xml, "root", ["root-step", "root-alter"], harmony.root);
    xml.leaf("kind", &[], harmony.kind);
    if let Some(bass) = harmony.bass {
        note(xml, "bass", ["bass-step", "bass-alter"], bass);
    }
    for (degree, alter) in harmony.degrees {
        xml.open("degree", &[]);
        xml.leaf("degree-value", &[], degree);
        xml.number("degree-alter", alter);
        xml.leaf("degree-type", &[], "add");
        xml.close();
    }
    if let Some(staff) = staff {
        xml.number("staff", staff);
    }
    xml.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chord_symbols() {
        let of = |text: &str| parse(text).map(|h| (h.root, h.kind, h.bass, h.degrees.len()));
        assert_eq!(of("C"), Some((('C', 0), "major", None, 0)));
        assert_eq!(of("Bbm7b5"), Some((('B', -1), "half-diminished", None, 0)));
        assert_eq!(of("Cmaj7/G#"), Some((('C', 0), "major-seventh", Some(('G', 1)), 0)));
        assert_eq!(of("F7#9"), Some((('F', 0), "dominant", None, 1)));
        assert_eq!(of("Dm (x)"), Some((('D', 0), "minor", None, 0)));
        assert!(of("Allegro").is_none() && of("Fine").is_none() && of("").is_none() && of("C/x").is_none());
    }
}
