//! A part, measure after measure.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::directions::{Span, Tempo};
use super::fields::Fields;
use super::notes::Slur;
use super::score::{Abc, Item, NoteId, Part, Sign, Voice};
use super::xml::{Fault, Node, real};
use super::{lyrics, timeline};

/// Every voice has every measure: more voices in one part would make much of nothing.
const MOST_VOICES: usize = 256;

/// For the same reason, voices times measures of a part.
const MOST_BARS: usize = 1_000_000;

/// What goes on from one part to the next, and what the parts say about the header.
#[derive(Default)]
pub(super) struct Carried {
    /// Sibelius numbers the voices of each staff from 1.
    pub sibelius: bool,
    /// The header's key.
    pub key: Option<String>,
    /// The header's meter.
    pub meter: Option<String>,
    /// The header's tempo.
    pub tempo: Option<Tempo>,
    /// MIDI's numbers of percussion instruments.
    pub drums: HashMap<String, i64>,
    /// What the signature does to A…G.
    pub signature: [i64; 7],
    /// Grace notes are open.
    pub grace: bool,
    /// Slurs open, by number.
    pub slurs: HashMap<String, Slur>,
    /// Wedges, octave shifts and pedals open, by kind and number.
    pub spans: HashMap<(&'static str, String), Span>,
    /// The voice that has the pedal.
    pub pedal: Option<i64>,
    /// What was odd.
    pub notices: Vec<Notice>,
}

/// Something odd at a place.
pub(super) struct Notice {
    /// Byte of the text.
    pub at: usize,
    /// The part, counted from 0.
    pub part: usize,
    /// The measure's number as printed.
    pub measure: String,
    /// What it was.
    pub text: String,
}

/// Where a part is read.
pub(super) struct Reader<'a, 'c> {
    pub carried: &'c mut Carried,
    /// The part, counted from 0.
    pub index: usize,
    pub part: Part,
    /// The part's `<note>` elements in order.
    pub fields: Vec<Fields<'a>>,
    /// The measure, counted from 0.
    pub measure: usize,
    pub measure_node: Node<'a>,
    /// Now, in divisions from the start of the measure.
    pub time: i64,
    /// The latest time of the measure.
    pub end: i64,
    /// Of a quarter.
    pub divisions: i64,
    /// By which everything in divisions is multiplied: not 1 if a duration is a decimal fraction.
    pub scale: i64,
    pub beats: (i64, i64),
    /// The measure's length by its meter.
    pub full: i64,
    /// Clefs, keys and meters that stand before the measure.
    pub signatures: String,
    pub repeat_begins: bool,
    pub bar_line: &'static str,
    pub ending: String,
    /// The last note, for chords and grace notes.
    pub last: Option<NoteId>,
    /// By staff: from sounding to written octave.
    pub octave_shifts: BTreeMap<i64, i64>,
    /// By staff: the clef now.
    pub clefs: BTreeMap<i64, String>,
    /// The voices that name an instrument, and the last one that each names.
    pub instruments: Vec<(usize, Cow<'a, str>)>,
    /// By staff: repeated measures that have not ended, their beginning and their text.
    pub measure_repeats: BTreeMap<i64, (usize, usize, String)>,
}

/// The number of a direction's staff.
pub(super) fn staff_number(node: Node) -> Result<i64, Fault> {
    match node.find("staff") {
        Some(staff) if !staff.text().is_empty() => staff.whole(),
        _ => Ok(1),
    }
}

impl<'a, 'c> Reader<'a, 'c> {
    /// Reads all of a part.
    pub(super) fn read(
        carried: &'c mut Carried,
        index: usize,
        node: Node<'a>,
        measures: &[Node<'a>],
        reached: &mut Option<Node<'a>>,
    ) -> Result<Part, Fault> {
        let mut reader = Reader {
            carried,
            index,
            part: Part::default(),
            fields: Vec::new(),
            measure: 0,
            measure_node: node,
            time: 0,
            end: 0,
            divisions: 0,
            scale: 1,
            beats: (4, 4),
            full: 0,
            signatures: String::new(),
            repeat_begins: false,
            bar_line: "|",
            ending: String::new(),
            last: None,
            octave_shifts: BTreeMap::new(),
            clefs: BTreeMap::new(),
            instruments: Vec::new(),
            measure_repeats: BTreeMap::new(),
        };
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
            // As the original writes it, also without a text.
            let text = if text.is_empty() { "None" } else { &text };
            reader.part.repeats[place] = format!("[I:repeat {text} 1]");
        }
        Ok(reader.part)
    }

    /// Looks through the notes: which voices there are, and the staff that most of each one's notes are on.
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
            return Err(Fault::at(*first, format!("{voices} voices in {} measures are too many", measures.len())));
        }
        if self.carried.sibelius {
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
            // Of staves with equally many the last one.
            let home = counts.into_iter().max_by_key(|(staff, notes)| (*notes, *staff)).map_or(1, |(staff, _)| staff);
            (voice.home, voice.staff) = (home, home);
            self.part.staves.entry(home).or_default().push(slot);
        }
        Ok(())
    }

    /// The voice of a note, a new one if need be.
    fn find_voice(&mut self, note: Node<'a>, counts: &mut Vec<BTreeMap<i64, usize>>) -> Result<Fields<'a>, Fault> {
        let mut fields = Fields::read(note, self.carried.sibelius)?;
        fields.slot = match self.slot(fields.voice) {
            Some(slot) => slot,
            None if counts.len() == MOST_VOICES => {
                return Err(Fault::at(note, format!("more than {MOST_VOICES} voices in one part")));
            }
            None => {
                self.part.voices.push(Voice::new(fields.voice));
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

    /// `notes` counts the part's notes.
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

    /// Anything of a measure but a note; `next` is the voice of the next note.
    fn element(&mut self, element: Node<'a>, next: Option<usize>) -> Result<(), Fault> {
        match element.name() {
            "attributes" => self.attributes(element)?,
            "direction" => self.direction(element, element, next)?,
            "sound" => self.direction(self.measure_node, element, next)?,
            "harmony" => self.harmony(element, next)?,
            "barline" => self.barline(element),
            "backup" | "forward" => {
                let problem = || Fault::at(element, format!("<{}> without <duration>", element.name()));
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

    /// The voice of this number.
    pub(super) fn slot(&self, number: i64) -> Option<usize> {
        self.part.voices.iter().position(|voice| voice.number == number)
    }

    /// A `<duration>` in divisions.
    pub(super) fn duration(&self, node: Node) -> Result<i64, Fault> {
        let length = if self.scale == 1 { node.whole()? } else { scaled(node, self.scale)? };
        if length < 0 {
            return Err(Fault::at(node, format!("<duration> is {}, less than 0", node.text())));
        }
        Ok(length)
    }

    pub(super) fn advance(&mut self, length: i64) {
        self.time = (self.time + length).max(0);
        self.end = self.end.max(self.time);
    }

    /// Adds a sign now; some signs are reason enough to write a voice that has nothing else.
    pub(super) fn sign(&mut self, slot: usize, text: impl Into<Abc>, counts: bool) {
        let voice = &mut self.part.voices[slot];
        voice.items.push(Item::Sign { time: self.time, text: Sign::Text(text.into()) });
        voice.sounds += usize::from(counts);
    }

    /// Makes a note of something odd.
    pub(super) fn notice(&mut self, node: Node, text: impl Into<String>) {
        let measure = self.measure_node.attribute("number").unwrap_or_default().into_owned();
        self.carried.notices.push(Notice { at: node.at(), part: self.index, measure, text: text.into() });
    }

    fn end_measure(&mut self) -> Result<(), Fault> {
        if self.divisions == 0 && self.end > 0 {
            return Err(Fault::at(self.measure_node, "durations before any <divisions>"));
        }
        if self.full != 0 && self.end > self.full {
            self.notice(self.measure_node, "longer than its meter");
        }
        let mut oddities = HashSet::new();
        for voice in &mut self.part.voices {
            self.time = self.end;
            if self.repeat_begins || !self.ending.is_empty() {
                match voice.bars.last_mut().and_then(|bar| bar.last_mut()) {
                    Some(Item::Sign { text: Sign::Text(text), .. }) => {
                        let text = text.to_mut();
                        if self.repeat_begins {
                            text.push(':');
                            *text = text.replace(":|:", "::").replace("||", "|");
                        }
                        text.push_str(&self.ending);
                    }
                    Some(_) => {}
                    None if self.repeat_begins => {
                        voice.front.push(Item::Sign { time: 0, text: Sign::Text("|:".into()) });
                    }
                    None => {}
                }
            }
            if !self.signatures.is_empty() {
                voice.front.push(Item::Sign { time: 0, text: Sign::Text(self.signatures.clone().into()) });
            }
            let bar_line = match self.bar_line {
                "||" => " ||",
                "|]" => " |]",
                ":|" => " :|",
                _ => " |",
            };
            voice.items.push(Item::Sign { time: self.end, text: Sign::Text(bar_line.into()) });
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

/// A decimal number of divisions.
pub(super) fn scaled(node: Node, scale: i64) -> Result<i64, Fault> {
    let number = real(node.text()).map(|number| (number * scale as f64).round());
    match number.filter(|number| number.abs() < (1_u64 << 45) as f64) {
        Some(number) => Ok(number as i64),
        None => Err(Fault::at(node, format!("<{}> is {:?}, not a number of divisions", node.name(), node.text()))),
    }
}
