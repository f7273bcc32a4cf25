//! Reads `<note>`: pitch, length, ties, slurs, ornaments, grace notes, tuplets.

use super::fault::Fault;
use super::fields::NoteFields;
use super::score::{Abc, BarItem, XmlDrum, XmlNote};
use super::state::{OpenSlur, PartReader};
use super::xml::{Node, integer, real};
use super::{lyrics, pitch};

/// Ornaments and their signs in ABC, in the order in which the original writes them.
const ORNAMENTS: [(&str, &str); 23] = [
    ("arpeggiate", "!arpeggio!"),
    ("articulations/accent", "!>!"),
    ("articulations/breath-mark", "!breath!"),
    ("articulations/detached-legato", "!tenuto!."),
    ("articulations/scoop", "!slide!"),
    ("articulations/spiccato", "!wedge!"),
    ("articulations/staccatissimo", "!wedge!"),
    ("articulations/staccato", "."),
    ("articulations/strong-accent", "!^!"),
    ("articulations/tenuto", "!tenuto!"),
    ("fermata", "!fermata!"),
    ("ornaments/inverted-mordent", "P"),
    ("ornaments/inverted-turn", "!invertedturn!"),
    ("ornaments/mordent", "M"),
    ("ornaments/trill-mark", "T"),
    ("ornaments/turn", "!turn!"),
    ("technical/down-bow", "v"),
    ("technical/harmonic", "!open!"),
    ("technical/open-string", "!open!"),
    ("technical/snap-pizzicato", "!snap!"),
    ("technical/stopped", "!plus!"),
    ("technical/thumb-position", "!thumb!"),
    ("technical/up-bow", "u"),
];

/// Up to so many signs, those of a chord's notes are written only once.
const MOST_SIGNS: usize = 256;

/// The most strokes of a tremolo.
const MOST_STROKES: i64 = 16;

/// The octaves that are accepted. Others would be written with thousands of octave marks.
const OCTAVES: std::ops::RangeInclusive<i64> = -5..=15;

fn alteration(accidental: &str) -> Option<i64> {
    Some(match accidental {
        "double-flat" | "flat-flat" => -2,
        "flat" | "natural-flat" => -1,
        "natural" => 0,
        "sharp" | "natural-sharp" => 1,
        "sharp-sharp" | "double-sharp" => 2,
        _ => return None,
    })
}

impl<'a> PartReader<'a, '_> {
    pub(super) fn note(&mut self, fields: &NoteFields<'a>) -> Result<(), Fault> {
        let NoteFields { node, slot, grace, .. } = *fields;
        let mut note = XmlNote {
            time: self.time,
            ratio: fields.modification.map_or(Ok(None), ratio)?,
            starts: fields.tuplets_start,
            stops: fields.tuplets_stop,
            grace: grace.is_some(),
            ..XmlNote::default()
        };
        if let Some(grace) = grace.filter(|_| !self.score.grace) {
            self.score.grace = true;
            note.before.push_back("{".into());
            if grace.attribute_is("slash", "yes") {
                note.before.push_back("/".into());
            }
        }
        let ends_grace = !note.grace && self.score.grace;
        if ends_grace {
            self.score.grace = false;
            if let Some(last) = self.last {
                self.part.notes[last].after.push('}');
            }
        }
        let mut chord = fields.chord;
        let hidden = node.attribute_is("print-object", "no");
        let mut rest = fields.rest;
        if !rest && hidden {
            if chord {
                return Ok(());
            }
            rest = true;
        }
        note.length = match fields.duration.filter(|_| !note.grace) {
            Some(duration) => self.duration(duration)?,
            None => 0,
        };
        let (step, octave) = self.place(fields, rest)?;

        let staff = self.part.voices[slot].staff;
        let tab = self.clefs.get(&staff).is_some_and(|clef| clef.starts_with("tab"));
        let mut prefix = String::new();
        if let Some(notations) = fields.notations {
            self.notations(&mut note, notations, tab, &mut prefix);
        }
        if !rest && fields.stem == Some("none") && (!tab || self.part.voices[slot].stems) {
            note.before.push_back("!stemless!".into());
        }
        if fields.accidental.is_some_and(|sign| sign.attribute_is("parentheses", "yes")) {
            prefix.push_str("!courtesy!");
        }
        let mut head: Abc = match rest {
            true if hidden || tab => "x".into(),
            true => "z".into(),
            false => self.spell(fields, step, octave)?.into(),
        };
        if fields.unpitched.is_some() {
            head = self.drum(fields, head.into_owned(), step, octave).into();
        }
        if fields.tie_starts {
            head.to_mut().push('-');
        }
        note.beamed = fields.beamed || note.grace;
        if fields.lyrics {
            note.lyrics = self.syllables(node);
        }

        if chord && self.last.is_none() {
            self.notice(node, "a chord without a note before it");
            chord = false;
        }
        let is_grace = note.grace;
        match self.last.filter(|_| chord) {
            Some(last) => {
                let last = &mut self.part.notes[last];
                for sign in note.before {
                    if last.before.len() >= MOST_SIGNS || !last.before.contains(&sign) {
                        last.before.push_back(sign);
                    }
                }
                last.chord.push(prefixed(prefix, head));
            }
            None => {
                let voice = &mut self.part.voices[slot];
                let moved = fields.staff - voice.staff;
                if moved != 0 {
                    voice.staff = fields.staff;
                    self.sign(slot, format!("[I:staff {moved:+}]"), false);
                }
                self.add(slot, note, prefix, head);
            }
        }
        if fields.slurs {
            self.slurs(node, slot, is_grace, ends_grace);
        }
        Ok(())
    }

    fn add(&mut self, slot: usize, mut note: XmlNote, prefix: String, head: Abc) {
        let voice = &mut self.part.voices[slot];
        let sounds = head != "z" && head != "x";
        if sounds {
            voice.sounds += 1;
            if !note.grace {
                voice.syllables.push(std::mem::take(&mut note.lyrics));
            }
        }
        let id = self.part.notes.len();
        note.head = prefixed(prefix, head);
        voice.items.push(BarItem::Note(id));
        let length = note.length;
        self.part.notes.push(note);
        self.last = Some(id);
        self.advance(length);
    }

    /// The step and octave of a pitched or an unpitched note.
    fn place(&mut self, fields: &NoteFields<'a>, rest: bool) -> Result<(char, i64), Fault> {
        let node = fields.node;
        let filled = |place: Option<Node<'a>>, name| place?.find(name).filter(|node| !node.text().is_empty());
        let find = |name, display_name| filled(fields.pitch, name).or_else(|| filled(fields.unpitched, display_name));
        let (Some(step), Some(octave)) = (find("step", "display-step"), find("octave", "display-octave")) else {
            if !rest {
                self.notice(node, "a note without pitch is written as e");
            }
            return Ok(('E', 5));
        };
        let step = step.text();
        let mut letters = step.trim().chars();
        let step = match (letters.next(), letters.next()) {
            (Some(letter @ ('A'..='G' | 'a'..='g')), None) => letter.to_ascii_uppercase(),
            _ => return Err(node.fault(format!("the step {step:?} is none of A to G"))),
        };
        let number = octave.whole()?;
        if !OCTAVES.contains(&number) {
            return Err(octave.fault(format!("octave {number}: no note is that far from middle C")));
        }
        Ok((step, number))
    }

    /// Spells a pitch, with an accidental if the key signature and the bar require one.
    fn spell(&mut self, fields: &NoteFields, step: char, octave: i64) -> Result<String, Fault> {
        let NoteFields { node, slot, .. } = *fields;
        let staff = self.part.voices[slot].staff;
        let octave = octave + self.octave_shifts.get(&staff).copied().unwrap_or(0);
        let sounding =
            match fields.pitch.and_then(|pitch| pitch.find("alter")).filter(|alter| !alter.text().trim().is_empty()) {
                None => None,
                Some(alter) => match real(alter.text()).filter(|number| number.abs() <= 12.0) {
                    // Quarter tones are rounded towards zero to semitones.
                    Some(number) => Some(number as i64),
                    None => {
                        return Err(alter.fault(format!("<alter> is {:?}, not a number of semitones", alter.text())));
                    }
                },
            };
        let mut forced = None;
        if let Some(accidental) = fields.accidental {
            forced = alteration(accidental.text());
            if forced.is_none() && !accidental.text().is_empty() {
                forced = Some(sounding.unwrap_or(0));
                self.notice(accidental, format!("the accidental {:?} is written as a semitone", accidental.text()));
            }
        }
        let signature = self.score.signature[usize::from(step as u8 - b'A')];
        let voice = &mut self.part.voices[slot];
        let before = voice.altered.get(&(step, octave)).copied();
        let altered = match (forced, sounding) {
            (Some(forced), _) => forced,
            (None, None) if signature == 0 && before.is_none() => return Ok(pitch::name(step, octave)),
            (None, sounding) => {
                let altered = sounding.unwrap_or(0);
                if altered == before.unwrap_or(signature) || fields.tie_stops {
                    return Ok(pitch::name(step, octave));
                }
                altered
            }
        };
        if altered.abs() > 2 {
            let (step, octave, altered) = pitch::respelled(step, octave, altered);
            voice.altered.insert((step, octave), altered);
            self.notice(node, "a triple accidental is written as another note of the same pitch");
            return Ok(pitch::altered(step, octave, altered));
        }
        voice.altered.insert((step, octave), altered);
        Ok(pitch::altered(step, octave, altered))
    }

    /// A percussion note. Its name in ABC stands for its instrument and the shape of its head.
    fn drum(&mut self, fields: &NoteFields, mut head: String, step: char, octave: i64) -> String {
        let slot = fields.slot;
        let clef = self.clefs.get(&self.part.voices[slot].staff).map_or("", String::as_str);
        let lines = if clef.contains("stafflines=1") { 4 } else { 0 };
        let (place, octave) = pitch::up(step, octave, lines + if clef.starts_with("bass") { 12 } else { 0 });
        let instrument = fields.instrument.and_then(|node| node.attribute("id"));
        let known = instrument.and_then(|id| self.score.drums.get(id.as_ref()).copied());
        let number = known.unwrap_or_else(|| pitch::midi(&head));
        let mut shape = String::new();
        if let Some(notehead) = fields.notehead {
            shape = notehead.text().replace(' ', "-");
            let sign = match shape.as_str() {
                "x" => "^",
                "circle-x" | "diamond" | "triangle" => "_",
                _ => "",
            };
            if !sign.is_empty() {
                head = format!("{sign}{}", head.replace(['^', '_'], ""));
            }
            if !shape.is_empty() {
                match notehead.attribute("filled").as_deref() {
                    Some("yes") => shape.push('+'),
                    Some("no") => shape.push('-'),
                    _ => {}
                }
            }
        }
        let drum = XmlDrum { step: pitch::name(place, octave), pitch: number, head: shape };
        self.part.voices[slot].drums.insert(head.clone(), drum);
        head
    }

    fn notations(&mut self, note: &mut XmlNote, notations: Node, tab: bool, prefix: &mut String) {
        let groups = ["articulations", "ornaments", "technical", "fermata", "arpeggiate"];
        if notations.elements().any(|group| groups.contains(&group.name())) {
            let found = ORNAMENTS.iter().filter(|(path, _)| notations.has(path));
            note.before.extend(found.map(|(_, sign)| Abc::from(*sign)));
        }
        if let Some(tremolo) = notations.find("ornaments/tremolo") {
            let strokes = |end: &str| -> Abc {
                let strokes = integer(tremolo.text()).unwrap_or(3).clamp(0, MOST_STROKES);
                format!("!{}{end}!", "/".repeat(strokes as usize)).into()
            };
            match tremolo.attribute("type").as_deref() {
                Some("single") => note.before.push_front(strokes("")),
                kind => {
                    // In a tremolo of two notes, each is written with its own length.
                    note.ratio = None;
                    if kind == Some("start") {
                        note.before.push_front(strokes("-"));
                    }
                }
            }
        }
        for finger in notations.below("technical", "fingering").filter(|_| !tab) {
            let finger = finger.text();
            note.before.push_back(format!("!{}!", if finger.is_empty() { "None" } else { finger }).into());
        }
        if let Some(string) = notations.find("technical/string").filter(|_| tab) {
            let sign = format!("!{}!", string.text());
            if !prefix.contains(&sign) {
                prefix.push_str(&sign);
            }
        }
        if let Some(line) = notations.find("ornaments/wavy-line") {
            match line.attribute("type").as_deref() {
                Some("start") => note.before.push_front("!trill(!".into()),
                Some("stop") => note.before.push_front("!trill)!".into()),
                _ => {}
            }
        }
        if let Some(slide) = notations.find("glissando").or_else(|| notations.find("slide")) {
            let wavy = slide.attribute_is("line-type", "wavy");
            match slide.attribute("type").as_deref() {
                Some("start") => note.before.push_front(if wavy { "!~(!" } else { "!-(!" }.into()),
                Some("stop") => note.before.push_front(if wavy { "!~)!" } else { "!-)!" }.into()),
                _ => {}
            }
        }
    }

    fn syllables(&mut self, node: Node) -> Vec<(usize, String)> {
        let mut syllables: Vec<(usize, String)> = Vec::new();
        let mut last = 0;
        for lyric in node.named("lyric") {
            let number = lyric.attribute("number").unwrap_or("1".into());
            // Sibelius writes `part1verse2`. Names such as `chorus` get the number after the verse before.
            let number = number.rsplit("verse").next().and_then(integer).unwrap_or(0);
            let number = if number == 0 {
                last + 1
            } else {
                last = number;
                number
            };
            match usize::try_from(number) {
                Ok(number) if number > lyrics::MOST_VERSES => self.notice(lyric, format!("verse {number} is left out")),
                Ok(number) if number > 0 => {
                    syllables.retain(|(other, _)| *other != number);
                    syllables.push((number, lyrics::syllable(lyric)));
                }
                _ => {}
            }
        }
        syllables
    }

    fn slurs(&mut self, node: Node, slot: usize, grace: bool, ends_grace: bool) {
        let Some(last) = self.last else { return };
        let voice = self.part.voices[slot].number;
        for slur in node.below("notations", "slur") {
            let starts = match slur.attribute("type").as_deref() {
                Some("start") => true,
                Some("stop") => false,
                _ => continue,
            };
            let number = slur.attribute("number").unwrap_or("1".into()).into_owned();
            let here = OpenSlur { starts, part: self.index, voice, note: last, grace };
            match self.score.slurs.remove(&number) {
                Some(other) if other.starts != starts => {
                    if other.voice == voice && other.starts && !(other.grace && ends_grace) {
                        if other.part == self.index {
                            self.part.notes[other.note].before.push_front("(".into());
                        }
                        self.part.notes[last].after.push(')');
                    }
                }
                Some(_) => {
                    let kind = if starts { "starts" } else { "stops" };
                    self.notice(slur, format!("slur {number} {kind} twice; the first is left out"));
                    self.score.slurs.insert(number, here);
                }
                None => {
                    self.score.slurs.insert(number, here);
                }
            }
        }
    }
}

/// A head with the signs right before it.
fn prefixed(prefix: String, head: Abc) -> Abc {
    if prefix.is_empty() { head } else { (prefix + &head).into() }
}

/// The ratio of a `<time-modification>`.
fn ratio(node: Node) -> Result<Option<(i64, i64)>, Fault> {
    let Some(actual) = node.find("actual-notes").filter(|node| !node.text().is_empty()) else { return Ok(None) };
    let problem = || node.fault("<time-modification> without <normal-notes>");
    let (many, of) = (actual.whole()?, node.find("normal-notes").ok_or_else(problem)?.whole()?);
    if many < 1 || of < 1 {
        return Err(node.fault(format!("a tuplet of {many} notes in the time of {of}")));
    }
    Ok(Some((many, of)))
}
