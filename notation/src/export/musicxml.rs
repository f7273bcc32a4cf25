//! A score as partwise MusicXML.

use std::collections::{BTreeSet, HashMap};

use super::instruments::{self, Sound};
use super::marks;
use super::notes::{LayerWriter, STEPS, note_ticks};
use super::xml::Xml;
use crate::abc::score::{BarLine, Bracket, Clef, Event, Key, Listed, Mark, Meter, Part, QUARTER, Score, Style, Voice};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!DOCTYPE score-partwise PUBLIC \"-//Recordare//DTD MusicXML 4.0 Partwise//EN\" \
    \"http://www.musicxml.org/dtds/partwise.dtd\">";

/// Divisions of a quarter note that all readers can do with, for pieces that would need more.
const COARSE: i64 = 10_080;

/// Slurs that may be open in a part at once: MusicXML's numbers end there.
const SLURS: usize = 16;

pub(super) fn write(score: &Score) -> String {
    let mut xml = Xml::new(HEAD);
    xml.open("score-partwise", &[("version", "4.0")]);
    if let Some(title) = score.titles.first() {
        xml.open("work", &[]);
        xml.leaf("work-title", &[], title);
        xml.close();
    }
    if let Some(subtitle) = score.titles.get(1) {
        xml.leaf("movement-title", &[], subtitle);
    }
    xml.open("identification", &[]);
    if !score.composer.is_empty() {
        xml.leaf("creator", &[("type", "composer")], &score.composer);
    }
    xml.open("encoding", &[]);
    xml.leaf("software", &[], "notagen-train");
    xml.close();
    xml.close();
    part_list(score, &mut xml);
    let scale = Scale::of(score);
    let meters = meters(score);
    for (number, part) in score.parts.iter().enumerate() {
        xml.open("part", &[("id", &format!("P{}", number + 1))]);
        PartWriter::new(score, part, number, scale, &mut xml).write(&meters);
        xml.close();
    }
    xml.finish()
}

fn part_list(score: &Score, xml: &mut Xml) {
    xml.open("part-list", &[]);
    let mut depth = 0;
    // Sixteen channels, one of them for drums.
    let mut channels = (1..=16).filter(|channel| *channel != 10).cycle();
    for listed in &score.layout {
        match listed {
            Listed::Open(bracket) => {
                depth += 1;
                xml.open("part-group", &[("number", &depth.to_string()), ("type", "start")]);
                xml.leaf("group-symbol", &[], if *bracket == Bracket::Brace { "brace" } else { "bracket" });
                xml.leaf("group-barline", &[], "yes");
                xml.close();
            }
            Listed::Close => {
                xml.empty("part-group", &[("number", &depth.to_string()), ("type", "stop")]);
                depth -= 1;
            }
            Listed::Part(number) => {
                let Some(part) = score.parts.get(*number) else { continue };
                xml.open("score-part", &[("id", &format!("P{}", number + 1))]);
                xml.leaf("part-name", &[], &part.name);
                if !part.short_name.is_empty() {
                    xml.leaf("part-abbreviation", &[], &part.short_name);
                }
                instruments(score, part, *number, &mut channels, xml);
                xml.close();
            }
        }
    }
    xml.close();
}

fn voices_of<'a>(score: &'a Score, part: &'a Part) -> impl Iterator<Item = &'a Voice> {
    part.staves.iter().flatten().filter_map(|place| score.voices.get(*place))
}

/// The drum sounds of a part.
fn drums(score: &Score, part: &Part) -> BTreeSet<u8> {
    let events = voices_of(score, part).flat_map(|voice| &voice.bars).flat_map(|bar| bar.layers.iter().flatten());
    let chords = events.filter_map(|event| if let Event::Chord(chord) = event { Some(chord) } else { None });
    chords.flat_map(|chord| &chord.notes).filter_map(|note| note.drum).collect()
}

fn instruments(score: &Score, part: &Part, number: usize, channels: &mut impl Iterator<Item = u8>, xml: &mut Xml) {
    let drums = drums(score, part);
    let name = if part.name.is_empty() { "Instrument" } else { &part.name };
    let number = number + 1;
    if drums.is_empty() {
        let id = format!("P{number}-I1");
        xml.open("score-instrument", &[("id", &id)]);
        xml.leaf("instrument-name", &[], name);
        xml.close();
        let own = voices_of(score, part).find_map(|voice| voice.program);
        let program = own.or(match instruments::sound(&part.name) {
            Some(Sound::Program(program)) => Some(program),
            _ => None,
        });
        xml.open("midi-instrument", &[("id", &id)]);
        xml.number("midi-channel", channels.next().unwrap_or(1));
        xml.number("midi-program", program.unwrap_or(0) + 1);
        xml.close();
        return;
    }
    for sound in &drums {
        xml.open("score-instrument", &[("id", &format!("P{number}-D{sound}"))]);
        xml.leaf("instrument-name", &[], name);
        xml.close();
    }
    for sound in &drums {
        xml.open("midi-instrument", &[("id", &format!("P{number}-D{sound}"))]);
        xml.number("midi-channel", 10);
        xml.number("midi-unpitched", u32::from(*sound) + 1);
        xml.close();
    }
}

/// Ticks to divisions.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    divisions: i64,
}

impl Scale {
    /// As few divisions as there can be with no length rounded.
    fn of(score: &Score) -> Scale {
        let mut common = QUARTER;
        let mut also = |ticks: i64| {
            let (mut a, mut b) = (common, ticks);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            common = a;
        };
        let bars = score.voices.iter().flat_map(|voice| &voice.bars);
        for event in bars.flat_map(|bar| bar.layers.iter().flatten()) {
            if let Event::Chord(chord) = event {
                also(chord.ticks);
                chord.notes.iter().for_each(|note| also(note_ticks(chord, note)));
            }
        }
        let divisions = QUARTER / common.max(1);
        Scale { divisions: if divisions > COARSE { COARSE } else { divisions } }
    }

    pub fn position(self, ticks: i64) -> i64 {
        ((i128::from(ticks) * i128::from(self.divisions) + i128::from(QUARTER / 2)) / i128::from(QUARTER)) as i64
    }
}

/// The meter that begins with each bar, where most voices that change have it.
pub(super) fn meters(score: &Score) -> Vec<Option<Meter>> {
    let mut meters: Vec<Option<Meter>> = (0..score.lengths.len())
        .map(|bar| {
            let mut found: Vec<&Meter> = Vec::new();
            let mut present = 0;
            for voice in &score.voices {
                let Some(bar) = voice.bars.get(bar).filter(|bar| !bar.missing) else { continue };
                present += 1;
                found.extend(bar.layers[0].iter().rev().find_map(|event| match event {
                    Event::Mark(Mark::Meter(meter)) => Some(meter),
                    _ => None,
                }));
            }
            found.first().filter(|_| 2 * found.len() >= present).map(|meter| (*meter).clone())
        })
        .collect();
    if let Some(first) = meters.first_mut() {
        *first = first.take().or_else(|| score.voices.iter().find_map(|voice| voice.meter.clone()));
    }
    meters
}

pub(super) struct PartWriter<'a> {
    score: &'a Score,
    part: &'a Part,
    pub(super) number: usize,
    pub(super) scale: Scale,
    pub(super) xml: &'a mut Xml,
    pub(super) drums: bool,
    /// How far down from its own each voice's staff is.
    pub(super) moved: Vec<i32>,
    /// The numbers of the slurs that are open, by voice and slur.
    pub(super) slurs: HashMap<(usize, u32), usize>,
    pub(super) free: Vec<usize>,
    /// The last syllable went on with a hyphen, by voice and verse.
    pub(super) hyphens: HashMap<(usize, usize), bool>,
    ending: String,
}

/// A voice's place in its part.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// In the score.
    pub voice: usize,
    /// From 0.
    pub staff: usize,
    /// In the part, from 0.
    pub index: usize,
    /// The first of its staff.
    pub first: bool,
}

impl<'a> PartWriter<'a> {
    fn new(score: &'a Score, part: &'a Part, number: usize, scale: Scale, xml: &'a mut Xml) -> PartWriter<'a> {
        PartWriter {
            score,
            part,
            number: number + 1,
            scale,
            xml,
            drums: !drums(score, part).is_empty(),
            moved: vec![0; score.voices.len()],
            slurs: HashMap::new(),
            free: (1..=SLURS).rev().collect(),
            hyphens: HashMap::new(),
            ending: String::new(),
        }
    }

    fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (staff, voices) in self.part.staves.iter().enumerate() {
            for (i, voice) in voices.iter().enumerate() {
                places.push(Place { voice: *voice, staff, index: places.len(), first: i == 0 });
            }
        }
        places
    }

    fn write(mut self, meters: &[Option<Meter>]) {
        let places = self.places();
        for bar in 0..self.score.lengths.len() {
            self.xml.open("measure", &[("number", &(bar + 1).to_string())]);
            let (left, right) = &self.score.bar_lines[bar];
            self.left(left);
            self.attributes(bar == 0, meters.get(bar).and_then(Option::as_ref));
            if bar == 0
                && self.number == 1
                && let Some(tempo) = &self.score.tempo
            {
                marks::tempo(self.xml, tempo, None);
            }
            let mut written = 0;
            for place in &places {
                self.bar(*place, bar, places.len(), &mut written);
            }
            self.right(bar, right);
            self.xml.close();
        }
    }

    fn left(&mut self, line: &BarLine) {
        if !line.repeat_start && line.ending.is_empty() {
            return;
        }
        self.xml.open("barline", &[("location", "left")]);
        if line.repeat_start {
            self.xml.leaf("bar-style", &[], "heavy-light");
        }
        if !line.ending.is_empty() {
            // Only numbers with commas are allowed; words stand beside a number that nothing else has.
            let number = match line.ending.strip_prefix('"') {
                Some(_) => "33".to_owned(),
                None => numbers(&line.ending).iter().map(u32::to_string).collect::<Vec<_>>().join(","),
            };
            match line.ending.strip_prefix('"') {
                Some(text) => self.xml.leaf("ending", &[("number", &number), ("type", "start")], text),
                None => self.xml.empty("ending", &[("number", &number), ("type", "start")]),
            }
            self.ending = number;
        }
        if line.repeat_start {
            self.xml.empty("repeat", &[("direction", "forward")]);
        }
        self.xml.close();
    }

    fn right(&mut self, bar: usize, line: &BarLine) {
        let next = self.score.bar_lines.get(bar + 1).map(|(left, _)| left);
        let goes_on = next.is_some_and(|left| left.ending.is_empty() && !left.repeat_start);
        let stops = !self.ending.is_empty()
            && (!goes_on || line.repeat_end || matches!(line.style, Style::Double | Style::Final));
        let style = match line.style {
            _ if line.repeat_end => "light-heavy",
            Style::Single if !stops => return,
            Style::Single => "regular",
            Style::Invisible => "none",
            Style::Dotted => "dotted",
            Style::Double => "light-light",
            Style::Final => "light-heavy",
        };
        self.xml.open("barline", &[("location", "right")]);
        self.xml.leaf("bar-style", &[], style);
        if stops {
            let number = std::mem::take(&mut self.ending);
            self.xml.empty("ending", &[("number", &number), ("type", "stop")]);
        }
        if line.repeat_end {
            self.xml.empty("repeat", &[("direction", "backward")]);
        }
        self.xml.close();
    }

    fn attributes(&mut self, first: bool, meter: Option<&Meter>) {
        if !first && meter.is_none() {
            return;
        }
        let lead = self.part.staves.iter().flatten().next().and_then(|place| self.score.voices.get(*place));
        self.xml.open("attributes", &[]);
        if first {
            self.xml.number("divisions", self.scale.divisions);
            if !self.drums {
                self.key(lead.and_then(|voice| voice.key.as_ref()));
            }
        }
        if let Some(meter) = meter {
            self.xml.open("time", &meter.symbol.map(|symbol| vec![("symbol", symbol)]).unwrap_or_default());
            self.xml.leaf("beats", &[], &meter.beats);
            self.xml.number("beat-type", meter.beat_type);
            self.xml.close();
        }
        if first {
            let staves = self.part.staves.len();
            if staves > 1 {
                self.xml.number("staves", staves);
            }
            for (staff, voices) in self.part.staves.iter().enumerate() {
                let clef = voices.iter().find_map(|place| self.score.voices[*place].clef.as_ref());
                let treble = Clef { sign: "G", line: 2, octave: 0 };
                self.clef(clef.unwrap_or(&treble), staff);
            }
            for (staff, voices) in self.part.staves.iter().enumerate() {
                if let Some(lines) = voices.iter().find_map(|place| self.score.voices[*place].staff_lines) {
                    let number = (staff + 1).to_string();
                    let numbered = [("number", number.as_str())];
                    self.xml.open("staff-details", if staves > 1 { &numbered } else { &[] });
                    self.xml.number("staff-lines", lines);
                    self.xml.close();
                }
            }
            if let Some(semitones) = lead.map(|voice| voice.transpose).filter(|semitones| *semitones != 0) {
                self.xml.open("transpose", &[]);
                self.xml.number("chromatic", semitones);
                self.xml.close();
            }
        }
        self.xml.close();
    }

    pub(super) fn key(&mut self, key: Option<&Key>) {
        let c = Key { mode: "major", ..Key::default() };
        let key = key.unwrap_or(&c);
        if key.explicit && key.alters == [0; 7] {
            return self.key(None);
        }
        self.xml.open("key", &[]);
        if key.explicit {
            for (step, alter) in key.alters.iter().enumerate().filter(|(_, alter)| **alter != 0) {
                self.xml.leaf("key-step", &[], STEPS[step]);
                self.xml.number("key-alter", alter);
            }
        } else {
            self.xml.number("fifths", key.fifths);
            self.xml.leaf("mode", &[], key.mode);
        }
        self.xml.close();
    }

    pub(super) fn clef(&mut self, clef: &Clef, staff: usize) {
        let number = (staff + 1).to_string();
        let numbered = [("number", number.as_str())];
        self.xml.open("clef", if self.part.staves.len() > 1 { &numbered } else { &[] });
        self.xml.leaf("sign", &[], clef.sign);
        if clef.line > 0 {
            self.xml.number("line", clef.line);
        }
        if clef.octave != 0 {
            self.xml.number("clef-octave-change", clef.octave);
        }
        self.xml.close();
    }

    /// A voice's bar, after going back to its beginning.
    fn bar(&mut self, place: Place, number: usize, voices: usize, written: &mut i64) {
        let score = self.score;
        let voice = &score.voices[place.voice];
        let bar = &voice.bars[number];
        for (layer, events) in bar.layers.iter().enumerate() {
            let sounds = events.iter().any(|event| matches!(event, Event::Chord(chord) if !chord.notes.is_empty()));
            let shows = (place.first && layer == 0) || sounds;
            if !shows {
                // Its hidden rests say nothing; what it changes holds.
                for event in events {
                    if let Event::Mark(Mark::Staff(by)) = event {
                        self.moved[place.voice] = self.moved[place.voice].saturating_add(*by).clamp(-9, 9);
                    }
                }
                continue;
            }
            if *written > 0 {
                self.xml.open("backup", &[]);
                self.xml.number("duration", *written);
                self.xml.close();
            }
            let own = voices * layer + place.index + 1;
            *written = LayerWriter { part: self, place, voice: own, length: score.lengths[number] }.write(events);
        }
    }

    /// The staff of a voice, for parts with several.
    pub(super) fn staff(&self, place: Place) -> Option<usize> {
        let staves = self.part.staves.len();
        let staff = (place.staff as i32 + self.moved[place.voice]).clamp(0, staves as i32 - 1) as usize;
        (staves > 1).then_some(staff + 1)
    }
}

/// The numbers of an ending: `1,3-5`.
pub(super) fn numbers(ending: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for part in ending.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
            numbers.extend((from..=to.min(from.saturating_add(16))).filter(|n| (1..=99).contains(n)));
        }
    }
    if numbers.is_empty() {
        numbers.push(1);
    }
    numbers
}
