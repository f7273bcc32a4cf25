//! Reads `<attributes>`: divisions, keys, meters, clefs, transposition, measure repeats.

use super::fault::Fault;
use super::score::{BarItem, Sign};
use super::state::{PartReader, scaled};
use super::xml::{Node, integer};

/// Keys by fifths, from Fb.
const KEYS: [&str; 21] = [
    "Fb", "Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#", "A#", "E#",
    "B#",
];

/// The index in [`KEYS`] of the key in this mode that has no accidentals.
fn tonic(mode: &str) -> Option<usize> {
    Some(match mode {
        "lyd" => 7,
        "maj" | "ion" | "non" => 8,
        "mix" => 9,
        "dor" => 10,
        "m" | "min" | "aeo" => 11,
        "phr" => 12,
        "loc" => 13,
        _ => return None,
    })
}

/// The alteration of A to G by a key signature.
fn signature(fifths: i64) -> [i64; 7] {
    let mut signature = [0; 7];
    let sharps = "FCGDAEB".bytes().map(|step| usize::from(step - b'A'));
    let count = usize::try_from(fifths.abs()).unwrap_or(7).min(7);
    let altered: Vec<usize> =
        if fifths > 0 { sharps.take(count).collect() } else { sharps.rev().take(count).collect() };
    altered.into_iter().for_each(|step| signature[step] = fifths.signum());
    signature
}

/// ABC's name of a clef.
fn clef_name(sign: &str, line: &str) -> &'static str {
    match (sign, line) {
        ("C", "1") => "alto1",
        ("C", "2") => "alto2",
        ("C", "3") => "alto",
        ("C", "4") => "tenor",
        ("F", "4") => "bass",
        ("F", "3") => "bass3",
        ("G", "2") => "treble",
        ("TAB", _) => "tab",
        ("percussion", _) => "perc",
        _ => "",
    }
}

impl<'a> PartReader<'a, '_> {
    pub(super) fn attributes(&mut self, node: Node<'a>) -> Result<(), Fault> {
        if let Some(divisions) = node.find("divisions").filter(|node| !node.text().is_empty()) {
            let number = if self.scale == 1 { divisions.whole()? } else { scaled(divisions, self.scale)? };
            if number < 1 {
                return Err(divisions.fault(format!("<divisions> is {}: it must be at least 1", divisions.text())));
            }
            self.divisions = number;
        }
        // Attributes at the beginning of the first measure go to the header.
        let first = self.time == 0 && self.measure == 0;
        let mut transposed = node.find_whole("transpose/chromatic")?.unwrap_or(0);
        self.key(node, first, transposed)?;
        self.meter(node, first)?;
        for style in node.named("measure-style") {
            let staff = style.attribute_whole("number")?.unwrap_or(1);
            for repeat in style.named("measure-repeat") {
                self.measure_repeat(repeat, staff);
            }
        }
        if let Some(octaves) = node.find("transpose/octave-change").filter(|node| !node.text().is_empty()) {
            transposed += 12 * octaves.whole()?;
        }
        for clef in node.named("clef") {
            self.clef(node, clef, first, transposed)?;
        }
        Ok(())
    }

    fn key(&mut self, node: Node<'a>, first: bool, transposed: i64) -> Result<(), Fault> {
        let Some(fifths_node) = node.find("key/fifths").filter(|node| !node.text().is_empty()) else { return Ok(()) };
        let fifths = fifths_node.whole()?;
        let mode = node.find_text("key/mode").unwrap_or("major");
        let short: String = mode.to_lowercase().chars().take(3).collect();
        let tonic = tonic(&short).unwrap_or_else(|| {
            if !mode.is_empty() {
                self.notice(fifths_node, format!("the mode {mode:?} is written as major"));
            }
            8
        });
        let name = usize::try_from(tonic as i64 + fifths).ok().and_then(|place| KEYS.get(place));
        let Some(name) = name else {
            return Err(fifths_node.fault(format!("<fifths> is {fifths}: there is no such key")));
        };
        let key = if tonic == 8 { (*name).to_owned() } else { format!("{name}{short}") };
        self.score.signature = signature(fifths);
        if first && transposed == 0 && self.score.key.is_none() {
            self.score.key = Some(key);
        } else if !first || self.score.key.as_ref() != Some(&key) {
            self.signatures.push_str(&format!("[K:{key}]"));
        }
        Ok(())
    }

    fn meter(&mut self, node: Node<'a>, first: bool) -> Result<(), Fault> {
        if let Some(beats_node) = node.find("time/beats").filter(|node| !node.text().is_empty()) {
            let beats = beats_node.text();
            let unit_node =
                node.find("time/beat-type").ok_or_else(|| beats_node.fault("<beats> without <beat-type>"))?;
            let unit = unit_node.whole()?;
            // `3+2` is a sum.
            let sum = beats.split('+').map(integer).sum::<Option<i64>>();
            match sum {
                Some(sum) if sum >= 0 && unit > 0 => self.beats = (sum, unit),
                _ => {
                    let text = unit_node.text();
                    return Err(beats_node.fault(format!("{beats:?} over {text:?} is not a meter")));
                }
            }
            let meter = format!("{beats}/{}", unit_node.text());
            if first {
                self.score.meter = Some(meter);
            } else {
                self.signatures.push_str(&format!("[M:{meter}]"));
            }
        }
        let (beats, unit) = self.beats;
        self.full = self.divisions.saturating_mul(beats).saturating_mul(4) / unit;
        Ok(())
    }

    fn measure_repeat(&mut self, node: Node<'a>, staff: i64) {
        match node.attribute("type").as_deref() {
            Some("start") => {
                let place = self.part.repeats.len();
                self.part.repeats.push(String::new());
                self.measure_repeats.insert(staff, (place, self.measure, node.text().to_owned()));
                for slot in self.part.staves.get(&staff).into_iter().flatten() {
                    self.part.voices[*slot].front.push(BarItem::Sign { time: 0, text: Sign::Repeat(place) });
                }
            }
            Some("stop") => match self.measure_repeats.remove(&staff) {
                Some((place, began, text)) => {
                    let measures = (self.measure - began) as i64;
                    self.part.repeats[place] = match integer(&text) {
                        Some(length) if length > 0 => format!("[I:repeat {text} {}]", measures / length),
                        _ => format!("[I:repeat {measures}]"),
                    };
                }
                None => self.notice(node, "a repeated measure ends that has not begun"),
            },
            _ => {}
        }
    }

    fn clef(&mut self, attributes: Node<'a>, node: Node<'a>, first: bool, transposed: i64) -> Result<(), Fault> {
        let staff = node.attribute_whole("number")?.unwrap_or(1);
        let sign = node.find_text("sign").unwrap_or_default();
        let line = node.find_text("line").unwrap_or_default();
        let mut clef = clef_name(sign, line).to_owned();
        let octaves = match node.find("clef-octave-change").filter(|node| !node.text().is_empty()) {
            Some(change) => change.whole()?,
            None => 0,
        };
        clef.push_str(match octaves {
            -2 => "-15",
            -1 => "-8",
            1 => "+8",
            2 => "+15",
            _ => "",
        });
        if octaves.abs() > 4 {
            return Err(node.fault(format!("<clef-octave-change> is {octaves}: no clef is that far off")));
        }
        self.octave_shifts.insert(staff, -octaves);
        if transposed != 0 {
            clef.push_str(&format!(" transpose={transposed}"));
        }
        if let Some(details) = attributes.find("staff-details")
            && details.elements().next().is_some()
            && details.attribute_whole("number")?.unwrap_or(1) == staff
        {
            if let Some(lines) = details.filled("staff-lines") {
                let lines = if lines == "3" && sign == "TAB" { "|||" } else { lines };
                clef.push_str(&format!(" stafflines={lines}"));
            }
            let tuning: Vec<String> = details.named("staff-tuning").map(tuned).collect();
            if !tuning.is_empty() {
                clef.push_str(&format!(" strings={}", tuning.join(",")));
            }
            if let Some(capo) = details.filled("capo") {
                clef.push_str(&format!(" capo={capo}"));
            }
        }
        self.clefs.insert(staff, clef.clone());
        if first {
            self.part.clefs.insert(staff, clef);
            return Ok(());
        }
        let voices = self.part.staves.get(&staff).cloned().unwrap_or_default();
        for slot in voices {
            let voice = &mut self.part.voices[slot];
            let moved = staff - voice.staff;
            if moved != 0 {
                voice.staff = staff;
                self.sign(slot, format!("[I:staff {moved:+}]"), false);
            }
            self.sign(slot, format!("[K:{clef}]"), false);
        }
        Ok(())
    }
}

fn tuned(string: Node) -> String {
    let text = |name| string.find_text(name).unwrap_or_default();
    format!("{}{}", text("tuning-step"), text("tuning-octave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_alter_steps() {
        assert_eq!(signature(0), [0; 7]);
        assert_eq!(signature(2), [0, 0, 1, 0, 0, 1, 0]);
        assert_eq!(signature(-3), [-1, -1, 0, 0, -1, 0, 0]);
        assert_eq!(signature(-12), [-1; 7]);
    }
}
