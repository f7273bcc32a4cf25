//! Writes the notes of a bar of one voice as MusicXML.

use super::marks::{self, NotationElement};
use super::part::{PartWriter, STEPS, VoicePlace, note_ticks};
use crate::abc::score::{AbcEvent, AbcMark, AbcNote, Chord, Slur, Syllable, WHOLE};

/// Note values in ticks and their names, the longest first.
const FIGURES: [(i64, &str); 13] = [
    (8 * WHOLE, "maxima"),
    (4 * WHOLE, "long"),
    (2 * WHOLE, "breve"),
    (WHOLE, "whole"),
    (WHOLE / 2, "half"),
    (WHOLE / 4, "quarter"),
    (WHOLE / 8, "eighth"),
    (WHOLE / 16, "16th"),
    (WHOLE / 32, "32nd"),
    (WHOLE / 64, "64th"),
    (WHOLE / 128, "128th"),
    (WHOLE / 256, "256th"),
    (WHOLE / 512, "512th"),
];

/// The name of the note value for a length, its dots, and whether that is the exact length.
fn figure(ticks: i64) -> (&'static str, usize, bool) {
    for (value, name) in FIGURES {
        for dots in 0..=3_u32 {
            if ticks << dots == value * ((2 << dots) - 1) {
                return (name, dots as usize, true);
            }
        }
    }
    let name = FIGURES.iter().find(|(value, _)| *value <= ticks).map_or("512th", |(_, name)| name);
    (name, 0, false)
}

pub(super) struct LayerWriter<'a, 'b> {
    pub part: &'a mut PartWriter<'b>,
    pub place: VoicePlace,
    /// The voice's number in MusicXML.
    pub voice: usize,
    /// The length of the bar in ticks.
    pub length: i64,
}

/// How a chord is notated, beside its notes.
#[derive(Default)]
struct ChordContext {
    beam: Option<&'static str>,
    /// The note value that its tuplet counts.
    unit: Option<&'static str>,
    grace: bool,
    slash: bool,
}

impl LayerWriter<'_, '_> {
    /// Writes the events of a layer; returns how many divisions they take.
    pub fn write(&mut self, events: &[AbcEvent]) -> i64 {
        let beams = beams(events);
        let units = tuplet_units(events);
        let chords = events.iter().filter(|event| matches!(event, AbcEvent::Chord(_))).count();
        let mut at = 0;
        for (i, event) in events.iter().enumerate() {
            match event {
                AbcEvent::Chord(chord) => {
                    let context = ChordContext { beam: beams[i], unit: units[i], ..ChordContext::default() };
                    let end = at + chord.ticks;
                    if chord.notes.is_empty() {
                        let whole = chords == 1 && chord.ticks == self.length;
                        self.rest(chord, at, whole, &context);
                    } else {
                        self.chord(chord, at, &context);
                    }
                    at = end;
                }
                AbcEvent::Grace(chords, slash) => {
                    for chord in chords {
                        self.chord(chord, at, &ChordContext { grace: true, slash: *slash, ..ChordContext::default() });
                    }
                }
                AbcEvent::Mark(mark) => self.mark(mark),
            }
        }
        self.part.scale.position(at)
    }

    fn mark(&mut self, mark: &AbcMark) {
        let staff = self.part.staff(self.place);
        let place = self.place;
        let part = &mut *self.part;
        match mark {
            AbcMark::Text(text, above) => marks::words(part.xml, text, *above, staff),
            AbcMark::Harmony(text) => marks::harmony(part.xml, text, staff),
            AbcMark::Decoration(name) => marks::decoration(part.xml, name, staff),
            AbcMark::Rehearsal(text) => marks::rehearsal(part.xml, text, staff),
            AbcMark::Tempo(tempo) => marks::tempo(part.xml, tempo, staff),
            AbcMark::Key(key) if place.index == 0 && !part.drums => {
                part.xml.open("attributes", &[]);
                part.key(Some(key));
                part.xml.close();
            }
            AbcMark::Clef(clef) if place.first => {
                part.xml.open("attributes", &[]);
                part.clef(clef, place.staff);
                part.xml.close();
            }
            AbcMark::Staff(by) => part.moved[place.voice] = part.moved[place.voice].saturating_add(*by).clamp(-9, 9),
            // Changes of meter are written with the measure.
            AbcMark::Key(_) | AbcMark::Clef(_) | AbcMark::Meter(_) => {}
        }
    }

    /// Writes a rest. If no note value has its length, it is written as several rests.
    fn rest(&mut self, chord: &Chord, at: i64, whole: bool, context: &ChordContext) {
        let mut parts = vec![chord.ticks];
        if !whole && chord.tuplet.is_none() && !figure(chord.ticks).2 {
            parts.clear();
            let mut rest = chord.ticks;
            while rest > 0 && parts.len() < 12 {
                let value = FIGURES.iter().map(|(value, _)| *value).find(|value| *value <= rest).unwrap_or(rest);
                parts.push(value);
                rest -= value;
            }
            if rest > 0 {
                parts.push(rest);
            }
        }
        let mut from = at;
        for (i, ticks) in parts.iter().enumerate() {
            let attributes: &[(&str, &str)] = if chord.invisible { &[("print-object", "no")] } else { &[] };
            self.part.xml.open("note", attributes);
            self.part.xml.empty("rest", if whole { &[("measure", "yes")] } else { &[] });
            self.duration(from, from + ticks);
            self.part.xml.number("voice", self.voice);
            let nominal = if parts.len() == 1 { chord.nominal } else { *ticks };
            if !whole {
                self.figure(nominal);
            }
            self.time_modification(chord, context);
            if let Some(staff) = self.part.staff(self.place) {
                self.part.xml.number("staff", staff);
            }
            if i == 0 {
                self.notations(chord, None);
            }
            self.part.xml.close();
            from += ticks;
        }
    }

    fn duration(&mut self, from: i64, to: i64) {
        let scale = self.part.scale;
        self.part.xml.number("duration", (scale.position(to) - scale.position(from)).max(0));
    }

    fn figure(&mut self, nominal: i64) {
        let (name, dots, _) = figure(nominal);
        self.part.xml.leaf("type", &[], name);
        for _ in 0..dots {
            self.part.xml.empty("dot", &[]);
        }
    }

    fn time_modification(&mut self, chord: &Chord, context: &ChordContext) {
        if let Some(tuplet) = &chord.tuplet {
            let xml = &mut self.part.xml;
            xml.open("time-modification", &[]);
            xml.number("actual-notes", tuplet.actual);
            xml.number("normal-notes", tuplet.normal);
            if let Some(unit) = context.unit {
                xml.leaf("normal-type", &[], unit);
            }
            xml.close();
        }
    }

    fn chord(&mut self, chord: &Chord, at: i64, context: &ChordContext) {
        // Decorations, slurs and the tuplet are notated at the first note alone.
        let plain = Chord::default();
        for (i, note) in chord.notes.iter().enumerate() {
            self.part.xml.open("note", &[]);
            if context.grace {
                self.part.xml.empty("grace", if context.slash { &[("slash", "yes")] } else { &[] });
            }
            if i > 0 {
                self.part.xml.empty("chord", &[]);
            }
            self.pitch(note);
            if !context.grace {
                self.duration(at, at + note_ticks(chord, note));
                if note.tie_stop {
                    self.part.xml.empty("tie", &[("type", "stop")]);
                }
                if note.tie_start {
                    self.part.xml.empty("tie", &[("type", "start")]);
                }
            }
            if let Some(sound) = note.drum {
                let id = format!("P{}-D{sound}", self.part.number);
                self.part.xml.empty("instrument", &[("id", &id)]);
            }
            self.part.xml.number("voice", self.voice);
            // Grace notes are eighths at most.
            let nominal = if context.grace { chord.nominal.min(WHOLE / 8) } else { note.nominal };
            self.figure(nominal);
            if let Some(alter) = note.accidental {
                let name = match alter {
                    2 => "double-sharp",
                    1 => "sharp",
                    -1 => "flat",
                    -2 => "flat-flat",
                    _ => "natural",
                };
                let courtesy = chord.decorations.iter().any(|name| name == "courtesy");
                self.part.xml.leaf("accidental", if courtesy { &[("parentheses", "yes")] } else { &[] }, name);
            }
            self.time_modification(chord, context);
            if let Some(staff) = self.part.staff(self.place) {
                self.part.xml.number("staff", staff);
            }
            if i == 0
                && let Some(beam) = context.beam
            {
                self.part.xml.leaf("beam", &[("number", "1")], beam);
            }
            if i == 0 || note.tie_start || note.tie_stop {
                self.notations(if i == 0 { chord } else { &plain }, Some(note).filter(|_| !context.grace));
            }
            if i == 0 && !context.grace {
                self.lyrics(&chord.lyrics);
            }
            self.part.xml.close();
        }
    }

    fn pitch(&mut self, note: &AbcNote) {
        let xml = &mut self.part.xml;
        let step = STEPS[usize::from(note.step % 7)];
        if note.drum.is_some() {
            xml.open("unpitched", &[]);
            xml.leaf("display-step", &[], step);
            xml.number("display-octave", note.octave.clamp(0, 9));
        } else {
            xml.open("pitch", &[]);
            xml.leaf("step", &[], step);
            if note.alter != 0 {
                xml.number("alter", note.alter);
            }
            xml.number("octave", note.octave.clamp(0, 9));
        }
        xml.close();
    }

    fn notations(&mut self, chord: &Chord, note: Option<&AbcNote>) {
        let tied = note.is_some_and(|note| note.tie_start || note.tie_stop);
        let tuplet = chord.tuplet.filter(|tuplet| tuplet.start || tuplet.stop);
        let decorations: Vec<(NotationElement, &str)> =
            chord.decorations.iter().filter_map(|name| Some((marks::notation(name)?, name.as_str()))).collect();
        if !tied && tuplet.is_none() && decorations.is_empty() && chord.slurs.is_empty() {
            return;
        }
        let part = &mut *self.part;
        part.xml.open("notations", &[]);
        if let Some(note) = note {
            if note.tie_stop {
                part.xml.empty("tied", &[("type", "stop")]);
            }
            if note.tie_start {
                part.xml.empty("tied", &[("type", "start")]);
            }
        }
        // Ends come first, since they free their numbers.
        let (starts, stops): (Vec<Slur>, Vec<Slur>) = chord.slurs.iter().partition(|slur| slur.start);
        for slur in stops {
            if let Some(number) = part.slurs.remove(&(self.place.voice, slur.id)) {
                part.xml.empty("slur", &[("type", "stop"), ("number", &number.to_string())]);
                part.free.push(number);
            }
        }
        for slur in starts {
            if let Some(number) = part.free.pop() {
                part.slurs.insert((self.place.voice, slur.id), number);
                let number = number.to_string();
                let mut attributes = vec![("type", "start"), ("number", number.as_str())];
                if slur.dotted {
                    attributes.push(("line-type", "dotted"));
                }
                part.xml.empty("slur", &attributes);
            }
        }
        if let Some(tuplet) = tuplet {
            if tuplet.start {
                part.xml.empty("tuplet", &[("type", "start"), ("bracket", "yes")]);
            }
            if tuplet.stop {
                part.xml.empty("tuplet", &[("type", "stop")]);
            }
        }
        for (notation, name) in decorations {
            notation.write(name, part.xml);
        }
        part.xml.close();
    }

    fn lyrics(&mut self, lyrics: &[Option<Syllable>]) {
        for (verse, syllable) in lyrics.iter().enumerate() {
            let Some(syllable) = syllable else { continue };
            let part = &mut *self.part;
            let inside = part.hyphens.entry((self.place.voice, verse)).or_default();
            part.xml.open("lyric", &[("number", &(verse + 1).to_string())]);
            if syllable.text.is_empty() {
                part.xml.empty("extend", &[("type", "stop")]);
            } else {
                let kind = match (*inside, syllable.hyphen) {
                    (false, true) => "begin",
                    (true, true) => "middle",
                    (true, false) => "end",
                    (false, false) => "single",
                };
                *inside = syllable.hyphen;
                part.xml.leaf("syllabic", &[], kind);
                part.xml.leaf("text", &[], &syllable.text);
            }
            part.xml.close();
        }
    }
}

/// The beam of each event. Notes shorter than a quarter have a beam if no space separates them.
fn beams(events: &[AbcEvent]) -> Vec<Option<&'static str>> {
    let mut beams = vec![None; events.len()];
    let mut group: Vec<usize> = Vec::new();
    let mut end = |group: &mut Vec<usize>| {
        if let [first, .., last] = group[..] {
            group.iter().for_each(|i| beams[*i] = Some("continue"));
            (beams[first], beams[last]) = (Some("begin"), Some("end"));
        }
        group.clear();
    };
    for (i, event) in events.iter().enumerate() {
        let AbcEvent::Chord(chord) = event else { continue };
        // By the written length: a dotted eighth has a beam, a quarter in a triplet has none.
        let beamed = !chord.notes.is_empty() && chord.nominal < WHOLE / 4;
        if chord.space_before || !beamed {
            end(&mut group);
        }
        if beamed {
            group.push(i);
        }
    }
    end(&mut group);
    beams
}

/// For each event in a tuplet, the note value that the tuplet counts, if there is one.
fn tuplet_units(events: &[AbcEvent]) -> Vec<Option<&'static str>> {
    let mut units = vec![None; events.len()];
    let mut members: Vec<usize> = Vec::new();
    let mut sum = 0;
    for (i, event) in events.iter().enumerate() {
        let AbcEvent::Chord(chord) = event else { continue };
        let Some(tuplet) = &chord.tuplet else { continue };
        if tuplet.start {
            members.clear();
            sum = 0;
        }
        members.push(i);
        sum += chord.nominal;
        if tuplet.stop {
            let (name, dots, exact) = figure(sum / i64::from(tuplet.actual).max(1));
            if exact && dots == 0 && sum % i64::from(tuplet.actual).max(1) == 0 {
                members.iter().for_each(|i| units[*i] = Some(name));
            }
        }
    }
    units
}
