//! Reads a part, measure after measure.

use std::collections::{BTreeMap, HashSet};

use super::fault::Fault;
use super::fields::NoteFields;
use super::score::{BarItem, Sign, XmlPart, XmlVoice};
use super::state::{PartReader, ScoreState};
use super::xml::Node;
use super::{lyrics, timeline};

/// Voices of a part. Every voice is written with every measure, so a small file with many voices would become large.
const MOST_VOICES: usize = 256;

/// Voices times measures of a part, for the same reason.
const MOST_BARS: usize = 1_000_000;

impl<'a, 'c> PartReader<'a, 'c> {
    /// Reads a whole part. `reached` is the measure at hand, for errors.
    pub(super) fn read(
        state: &'c mut ScoreState,
        index: usize,
        node: Node<'a>,
        measures: &[Node<'a>],
        reached: &mut Option<Node<'a>>,
    ) -> Result<XmlPart, Fault> {
        let mut reader = PartReader::new(state, index, node);
        reader.find_voices(measures, reached)?;
        reader.part.notes.reserve(reader.fields.len());
        let mut notes = 0;
        for (number, measure) in measures.iter().enumerate() {
            *reached = Some(*measure);
            reader.measure = number;
            reader.measure_node = *measure;
            reader.read_measure(*measure, &mut notes)?;
        }
        let hanging = std::mem::take(&mut reader.measure_repeats);
        for (place, _, text) in hanging.into_values() {
            // The original writes `None` where there is no text.
            let text = if text.is_empty() { "None" } else { &text };
            reader.part.repeats[place] = format!("[I:repeat {text} 1]");
        }
        Ok(reader.part)
    }

    /// Looks through the notes: which voices there are, and which staff most notes of each voice are on.
    fn find_voices(&mut self, measures: &[Node<'a>], reached: &mut Option<Node<'a>>) -> Result<(), Fault> {
        let mut counts: Vec<BTreeMap<i64, usize>> = Vec::new();
        let mut decimals = 0;
        for measure in measures {
            *reached = Some(*measure);
            for element in measure.elements() {
                let number = match element.name() {
                    "note" => {
                        let fields = self.find_voice(element, &mut counts)?;
                        self.fields.push(fields);
                        self.fields.last().and_then(|fields| fields.duration)
                    }
                    "backup" | "forward" => element.find("duration"),
                    "attributes" => element.find("divisions"),
                    _ => None,
                };
                let text = number.map_or("", Node::text);
                if text.bytes().any(|byte| byte == b'.')
                    && let Some((_, fraction)) = text.trim().split_once('.')
                {
                    decimals = decimals.max(fraction.trim_end_matches('0').len());
                }
            }
        }
        self.scale = 10_i64.pow(decimals.min(6) as u32);
        let voices = self.part.voices.len();
        if let Some(first) = measures.first().filter(|_| voices * measures.len() > MOST_BARS) {
            return Err(first.fault(format!("{voices} voices in {} measures are too many", measures.len())));
        }
        if self.score.sibelius {
            let mut order: Vec<usize> = (0..self.part.voices.len()).collect();
            order.sort_by_key(|slot| self.part.voices[*slot].number);
            counts = order.iter().map(|slot| std::mem::take(&mut counts[*slot])).collect();
            self.part.voices.sort_by_key(|voice| voice.number);
            let mut places = vec![0; order.len()];
            order.iter().enumerate().for_each(|(new, old)| places[*old] = new);
            self.fields.iter_mut().for_each(|fields| fields.slot = places[fields.slot]);
            self.instruments.iter_mut().for_each(|(slot, _)| *slot = places[*slot]);
        }
        for (slot, (voice, counts)) in self.part.voices.iter_mut().zip(counts).enumerate() {
            // Of staves with equally many notes, the last one.
            let home = counts.into_iter().max_by_key(|(staff, notes)| (*notes, *staff)).map_or(1, |(staff, _)| staff);
            (voice.home, voice.staff) = (home, home);
            self.part.staves.entry(home).or_default().push(slot);
        }
        Ok(())
    }

    /// Reads a note's fields and finds its voice, or adds a new one.
    fn find_voice(&mut self, note: Node<'a>, counts: &mut Vec<BTreeMap<i64, usize>>) -> Result<NoteFields<'a>, Fault> {
        let mut fields = NoteFields::read(note, self.score.sibelius)?;
        fields.slot = match self.slot(fields.voice) {
            Some(slot) => slot,
            None if counts.len() == MOST_VOICES => {
                return Err(note.fault(format!("more than {MOST_VOICES} voices in one part")));
            }
            None => {
                self.part.voices.push(XmlVoice::new(fields.voice));
                counts.push(BTreeMap::new());
                counts.len() - 1
            }
        };
        self.part.staves.entry(fields.staff).or_default();
        *counts[fields.slot].entry(fields.staff).or_default() += 1;
        if fields.stem != Some("none") && !fields.rest {
            self.part.voices[fields.slot].stems = true;
        }
        if let Some(instrument) = fields.instrument.and_then(|node| node.attribute("id")) {
            match self.instruments.iter_mut().find(|(slot, _)| *slot == fields.slot) {
                Some((_, last)) => *last = instrument,
                None => self.instruments.push((fields.slot, instrument)),
            }
        }
        Ok(fields)
    }

    /// Reads a measure. `notes` counts the part's notes so far.
    fn read_measure(&mut self, measure: Node<'a>, notes: &mut usize) -> Result<(), Fault> {
        self.signatures.clear();
        self.repeat_begins = false;
        self.bar_line = "|";
        self.ending.clear();
        for voice in &mut self.part.voices {
            voice.altered.clear();
        }
        let elements: Vec<Node> = measure.elements().collect();
        let mut next_notes = vec![None; elements.len()];
        let mut note = *notes + elements.iter().filter(|element| element.name() == "note").count();
        let mut next = None;
        for (place, element) in elements.iter().enumerate().rev() {
            next_notes[place] = next;
            match element.name() {
                "note" => {
                    note -= 1;
                    next = self.fields.get(note).map(|fields| fields.slot);
                }
                "backup" => next = None,
                _ => {}
            }
        }
        let fields = std::mem::take(&mut self.fields);
        let read = elements.iter().zip(next_notes).try_for_each(|(element, next)| match element.name() {
            "note" => {
                *notes += 1;
                fields.get(*notes - 1).map_or(Ok(()), |fields| self.note(fields))
            }
            _ => self.element(*element, next),
        });
        self.fields = fields;
        read?;
        self.end_measure()
    }

    /// Reads an element that is no note. `next` is the voice of the note after it.
    fn element(&mut self, element: Node<'a>, next: Option<usize>) -> Result<(), Fault> {
        match element.name() {
            "attributes" => self.attributes(element)?,
            "direction" => self.direction(element, element, next)?,
            "sound" => self.direction(self.measure_node, element, next)?,
            "harmony" => self.harmony(element, next)?,
            "barline" => self.barline(element),
            "backup" | "forward" => {
                let problem = || element.fault(format!("<{}> without <duration>", element.name()));
                let length = self.duration(element.find("duration").ok_or_else(problem)?)?;
                if timeline::long_enough(length, self.divisions) {
                    self.advance(if element.name() == "backup" { -length } else { length });
                } else if length > 0 {
                    self.notice(element, format!("<{}> of less than a 64th is left out", element.name()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_measure(&mut self) -> Result<(), Fault> {
        if self.divisions == 0 && self.end > 0 {
            return Err(self.measure_node.fault("durations before any <divisions>"));
        }
        if self.full != 0 && self.end > self.full {
            self.notice(self.measure_node, "longer than its meter");
        }
        let mut oddities = HashSet::new();
        for voice in &mut self.part.voices {
            self.time = self.end;
            if self.repeat_begins || !self.ending.is_empty() {
                match voice.bars.last_mut().and_then(|bar| bar.last_mut()) {
                    Some(BarItem::Sign { text: Sign::Text(text), .. }) => {
                        let text = text.to_mut();
                        if self.repeat_begins {
                            text.push(':');
                            *text = text.replace(":|:", "::").replace("||", "|");
                        }
                        text.push_str(&self.ending);
                    }
                    Some(_) => {}
                    None if self.repeat_begins => {
                        voice.front.push(BarItem::Sign { time: 0, text: Sign::Text("|:".into()) });
                    }
                    None => {}
                }
            }
            if !self.signatures.is_empty() {
                voice.front.push(BarItem::Sign { time: 0, text: Sign::Text(self.signatures.clone().into()) });
            }
            let bar_line = match self.bar_line {
                "||" => " ||",
                "|]" => " |]",
                ":|" => " :|",
                _ => " |",
            };
            voice.items.push(BarItem::Sign { time: self.end, text: Sign::Text(bar_line.into()) });
            let mut items = std::mem::take(&mut voice.front);
            items.reverse();
            items.append(&mut voice.items);
            let bar = timeline::settle(items, &mut self.part.notes, self.divisions, &mut |odd| {
                oddities.insert((odd, voice.number));
            });
            let verses = lyrics::verses(&voice.syllables, voice.verses.last());
            voice.syllables.clear();
            voice.verses.push(verses);
            timeline::break_rhythm(&bar, &mut self.part.notes);
            voice.bars.push(bar);
        }
        let mut oddities: Vec<(&str, i64)> = oddities.into_iter().collect();
        oddities.sort_unstable();
        for (odd, voice) in oddities {
            self.notice(self.measure_node, format!("voice {voice}: {odd}"));
        }
        self.part.divisions.push(self.divisions);
        (self.time, self.end) = (0, 0);
        Ok(())
    }
}
