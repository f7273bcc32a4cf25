//! Reads `<direction>` and `<sound>`: tempo, dynamics, words, wedges, octave shifts, pedals, jumps.

use super::fault::Fault;
use super::score::{BarItem, Sign};
use super::state::{HeaderTempo, OpenSpan, PartReader};
use super::xml::{Node, real};

/// Where a direction is written.
#[derive(Clone, Copy)]
pub(super) struct DirectionTarget {
    pub staff: i64,
    /// The index of the voice of the next note.
    pub slot: usize,
    /// The index of the first voice of its staff.
    pub first: usize,
}

const DYNAMICS: [(&str, &str); 11] = [
    ("p", "!p!"),
    ("pp", "!pp!"),
    ("ppp", "!ppp!"),
    ("pppp", "!pppp!"),
    ("f", "!f!"),
    ("ff", "!ff!"),
    ("fff", "!fff!"),
    ("ffff", "!ffff!"),
    ("mp", "!mp!"),
    ("mf", "!mf!"),
    ("sfz", "!sfz!"),
];

/// The jumps of a `<sound>`, and their signs in ABC. The first one counts.
const JUMPS: [(&str, &str); 6] = [
    ("dacapo", "!D.C.!"),
    ("dalsegno", "!D.S.!"),
    ("tocoda", "!dacoda!"),
    ("fine", "!fine!"),
    ("coda", "!O!"),
    ("segno", "!S!"),
];

/// The number of a direction's staff.
pub(super) fn staff_number(node: Node) -> Result<i64, Fault> {
    match node.find("staff") {
        Some(staff) if !staff.text().is_empty() => staff.whole(),
        _ => Ok(1),
    }
}

/// The signs that open and close a span.
fn signs(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "down" => ("!8va(!", "!8va)!"),
        "up" => ("!8vb(!", "!8vb)!"),
        "crescendo" => ("!<(!", "!<)!"),
        "diminuendo" => ("!>(!", "!>)!"),
        "start" => ("!ped!", "!ped-up!"),
        _ => return None,
    })
}

fn unit(name: &str) -> (i64, i64) {
    match name {
        "whole" => (1, 1),
        "half" => (1, 2),
        "eighth" => (1, 8),
        _ => (1, 4),
    }
}

fn dotted((notes, of): (i64, i64)) -> (i64, i64) {
    super::length::reduced(notes * 3, of * 2)
}

/// The first number in a text, such as 84 in `c. 84`.
fn number(text: &str) -> Option<f64> {
    text.split(|c: char| c != '.' && !c.is_ascii_digit()).find_map(real)
}

impl<'a> PartReader<'a, '_> {
    /// Where a direction is written, if the part has notes. `next` is the voice of the next note.
    pub(super) fn target(&mut self, node: Node, next: Option<usize>) -> Result<Option<DirectionTarget>, Fault> {
        let staff = staff_number(node)?;
        let of_staff = self.part.staves.get(&staff).and_then(|voices| voices.first().copied());
        let first = of_staff.or_else(|| self.slot(1)).unwrap_or(0);
        if self.part.voices.is_empty() {
            return Ok(None);
        }
        let slot = next.unwrap_or(first);
        let staff = next.map_or(staff, |slot| self.part.voices[slot].home);
        Ok(Some(DirectionTarget { staff, slot, first }))
    }

    /// Reads a direction. `node` has the content; `place` has the staff.
    pub(super) fn direction(&mut self, node: Node<'a>, place: Node<'a>, next: Option<usize>) -> Result<(), Fault> {
        let Some(mut target) = self.target(place, next)? else { return Ok(()) };
        let mut jump = None;
        let mut rate = None;
        let mut beat = (1, 4);
        if let Some(sound) = node.find("sound") {
            if let Some(instrument) = sound.find("midi-instrument").filter(|node| node.elements().next().is_some())
                && let Some(id) = instrument.attribute("id")
                && let Some((slot, _)) = self.instruments.iter().find(|(_, last)| *last == id)
            {
                target.slot = *slot;
            }
            if let Some(text) = sound.attribute("tempo").filter(|text| !text.is_empty()) {
                match real(&text) {
                    Some(number) => rate = Some(number.round_ties_even()),
                    None => self.notice(sound, format!("the tempo {text:?} is not a number")),
                }
            }
            let asked = |(name, _): &&(&str, &str)| sound.attribute(name).is_some_and(|value| !value.is_empty());
            jump = JUMPS.iter().find(asked).map(|(_, sign)| *sign);
        }
        let below = node.attribute_is("placement", "below");
        let mut words = Words::default();
        for kind in node.named("direction-type") {
            if let Some(metronome) = kind.find("metronome") {
                beat = unit(metronome.find_text("beat-unit").unwrap_or_default());
                if metronome.has("beat-unit-dot") {
                    beat = dotted(beat);
                }
                if let Some(number) = metronome.find_text("per-minute").and_then(number) {
                    rate = Some(number);
                }
            }
            if let Some(wedge) = kind.find("wedge") {
                self.span("wedge", wedge, target);
            }
            self.words(kind, jump, below, &mut words, target);
            for (name, sign) in DYNAMICS {
                if kind.below("dynamics", name).next().is_some() {
                    self.sign(target.slot, sign, true);
                }
            }
            for (name, sign) in [("coda", "O"), ("segno", "S")] {
                if kind.has(name) {
                    self.sign(target.slot, sign, true);
                }
            }
            if let Some(shift) = kind.find("octave-shift") {
                self.span("octave-shift", shift, target);
            }
            if let Some(pedal) = kind.find("pedal") {
                // All pedals are written in the voice of the first one.
                let voice = self.score.pedal.filter(|voice| *voice != 0);
                let voice = voice.unwrap_or(self.part.voices[target.slot].number);
                self.score.pedal = Some(voice);
                let slot = self.slot(voice).unwrap_or(target.slot);
                self.span("pedal", pedal, DirectionTarget { slot, staff: 1, ..target });
            }
        }
        if let Some(rate) = rate {
            let tempo = HeaderTempo { unit: beat, rate: format!("{:.0}", rate.round_ties_even()) };
            if self.time == 0 && self.measure == 0 {
                self.score.tempo = Some(tempo);
            } else {
                let (notes, of) = tempo.unit;
                self.sign(target.first, format!("[Q:{notes}/{of}={}]", tempo.rate), false);
            }
        }
        if !words.text.is_empty() {
            self.sign(target.slot, format!("\"{}{}\"", words.side, words.text), true);
        }
        Ok(())
    }

    /// Reads words and rehearsal marks. If there is a jump, its sign is written instead.
    fn words(
        &mut self,
        kind: Node,
        jump: Option<&'static str>,
        below: bool,
        words: &mut Words,
        target: DirectionTarget,
    ) {
        let name = if kind.has("words") { "words" } else { "rehearsal" };
        for node in kind.named(name) {
            if let Some(sign) = jump {
                self.sign(target.slot, sign, true);
                break;
            }
            let height = node.attribute("default-y").and_then(|height| real(&height)).unwrap_or(0.0);
            words.side = if below || height < 0.0 { '_' } else { '^' };
            for c in node.text().chars() {
                match c {
                    '"' => words.text.push_str("\\\""),
                    '\n' => words.text.push_str("\\n"),
                    c => words.text.push(c),
                }
            }
        }
        words.trim();
    }

    fn span(&mut self, name: &'static str, node: Node, target: DirectionTarget) {
        let kind = node.attribute("type").unwrap_or_default();
        let key = (name, node.attribute("number").unwrap_or("1".into()).into_owned());
        if let Some((opening, closing)) = signs(&kind) {
            let open = OpenSpan::Begun { closing, voice: self.part.voices[target.slot].number };
            match self.score.spans.remove(&key) {
                Some(OpenSpan::Ended { time }) => self.span_sign(closing, target, time),
                Some(OpenSpan::Begun { .. }) => {
                    self.notice(node, format!("a {name} begins and the one before has not ended"));
                    self.score.spans.insert(key, open);
                }
                None => {
                    self.score.spans.insert(key, open);
                }
            }
            self.span_sign(opening, target, self.time);
        } else if kind == "stop" {
            match self.score.spans.remove(&key) {
                Some(OpenSpan::Begun { closing, voice }) => {
                    let slot = self.slot(voice).unwrap_or(target.slot);
                    self.span_sign(closing, DirectionTarget { slot, ..target }, self.time);
                }
                Some(OpenSpan::Ended { .. }) => self.notice(node, format!("a {name} ends twice")),
                None => {
                    self.score.spans.insert(key, OpenSpan::Ended { time: self.time });
                }
            }
        } else if !matches!(&*kind, "continue" | "resume" | "discontinue" | "change") {
            self.notice(node, format!("a {name} of type {kind:?} is left out"));
        }
    }

    /// Writes a sign of a span. Octave shifts are written in all voices of the staff.
    fn span_sign(&mut self, text: &'static str, target: DirectionTarget, time: i64) {
        let of_staff = self.part.staves.get(&target.staff);
        let slots = match of_staff.filter(|_| text.starts_with("!8v")) {
            Some(slots) => slots.clone(),
            None => vec![target.slot],
        };
        for slot in slots {
            self.part.voices[slot].items.push(BarItem::Sign { time, text: Sign::Text(text.into()) });
        }
    }
}

/// The words of a direction.
#[derive(Default)]
struct Words {
    side: char,
    text: String,
}

impl Words {
    fn trim(&mut self) {
        let end = self.text.trim_end_matches(crate::text::is_space).len();
        self.text.truncate(end);
        if self.text.starts_with(crate::text::is_space) {
            self.text = self.text.trim_start_matches(crate::text::is_space).to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tempos_are_found_and_rounded_as_in_python() {
        assert_eq!(number("c. 84"), Some(84.0));
        assert_eq!(number("ca 84.5-90"), Some(84.5));
        assert_eq!(number("lento"), None);
        assert_eq!(dotted(unit("half")), (3, 4));
        for (rate, text) in [(60.5_f64, "60"), (61.5, "62"), (72.4, "72")] {
            assert_eq!(format!("{:.0}", rate.round_ties_even()), text);
        }
    }
}
