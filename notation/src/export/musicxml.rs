//! Writes a score as partwise MusicXML.

use super::instruments::{self, Sound};
use super::marks;
use super::notes::LayerWriter;
use super::part::{DivisionScale, PartWriter, VoicePlace, drums, voices_of};
use super::playback::numbers;
use super::timing::meters;
use super::xml::XmlWriter;
use crate::abc::score::{
    AbcEvent, AbcMark, AbcPart, AbcScore, BarLine, BarLineStyle, Bracket, Clef, LayoutEntry, Meter,
};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!DOCTYPE score-partwise PUBLIC \"-//Recordare//DTD MusicXML 4.0 Partwise//EN\" \
    \"http://www.musicxml.org/dtds/partwise.dtd\">";

pub(super) fn write(score: &AbcScore) -> String {
    let mut xml = XmlWriter::new(HEAD);
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
    let scale = DivisionScale::of(score);
    let meters = meters(score);
    for (number, part) in score.parts.iter().enumerate() {
        xml.open("part", &[("id", &format!("P{}", number + 1))]);
        PartWriter::new(score, part, number, scale, &mut xml).write(&meters);
        xml.close();
    }
    xml.finish()
}

fn part_list(score: &AbcScore, xml: &mut XmlWriter) {
    xml.open("part-list", &[]);
    let mut depth = 0;
    // Sixteen channels, one of them for drums.
    let mut channels = (1..=16).filter(|channel| *channel != 10).cycle();
    for listed in &score.layout {
        match listed {
            LayoutEntry::Open(bracket) => {
                depth += 1;
                xml.open("part-group", &[("number", &depth.to_string()), ("type", "start")]);
                xml.leaf("group-symbol", &[], if *bracket == Bracket::Brace { "brace" } else { "bracket" });
                xml.leaf("group-barline", &[], "yes");
                xml.close();
            }
            LayoutEntry::Close => {
                xml.empty("part-group", &[("number", &depth.to_string()), ("type", "stop")]);
                depth -= 1;
            }
            LayoutEntry::Part(number) => {
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

fn instruments(
    score: &AbcScore,
    part: &AbcPart,
    number: usize,
    channels: &mut impl Iterator<Item = u8>,
    xml: &mut XmlWriter,
) {
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

impl<'a> PartWriter<'a> {
    fn places(&self) -> Vec<VoicePlace> {
        let mut places = Vec::new();
        for (staff, voices) in self.part.staves.iter().enumerate() {
            for (i, voice) in voices.iter().enumerate() {
                places.push(VoicePlace { voice: *voice, staff, index: places.len(), first: i == 0 });
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
            // MusicXML allows only numbers with commas. An ending with words gets a number that no other ending has.
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
            && (!goes_on || line.repeat_end || matches!(line.style, BarLineStyle::Double | BarLineStyle::Final));
        let style = match line.style {
            _ if line.repeat_end => "light-heavy",
            BarLineStyle::Single if !stops => return,
            BarLineStyle::Single => "regular",
            BarLineStyle::Invisible => "none",
            BarLineStyle::Dotted => "dotted",
            BarLineStyle::Double => "light-light",
            BarLineStyle::Final => "light-heavy",
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

    /// A voice's bar, after going back to its beginning.
    fn bar(&mut self, place: VoicePlace, number: usize, voices: usize, written: &mut i64) {
        let score = self.score;
        let voice = &score.voices[place.voice];
        let bar = &voice.bars[number];
        for (layer, events) in bar.layers.iter().enumerate() {
            let sounds = events.iter().any(|event| matches!(event, AbcEvent::Chord(chord) if !chord.notes.is_empty()));
            let shows = (place.first && layer == 0) || sounds;
            if !shows {
                // Its hidden rests are not written, but its changes of staff count.
                for event in events {
                    if let AbcEvent::Mark(AbcMark::Staff(by)) = event {
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
}
