//! Writes the header: the piece, and the names, clefs and percussion of its voices.

use super::groups::{Names, PartLayout, PartListEntry};
use super::length::UNIT;
use super::pitch;
use super::score::XmlPart;
use super::state::ScoreState;
use super::voices::WrittenVoice;

/// What the header says about the parts written so far.
#[derive(Default)]
pub(super) struct VoiceHeader {
    /// For each part and staff, the numbers of the voices.
    pub parts: Vec<Vec<Vec<usize>>>,
    /// The lines of the voices, in the order of parts and staves.
    lines: Vec<VoiceLine>,
}

struct VoiceLine {
    number: usize,
    clef: String,
    drums: Vec<String>,
}

impl VoiceHeader {
    /// Adds a part with the voices that were written.
    pub(super) fn add(&mut self, part: &XmlPart, written: &[WrittenVoice]) {
        let mut staves = Vec::new();
        for (staff, slots) in &part.staves {
            let of_staff: Vec<&WrittenVoice> =
                slots.iter().filter_map(|slot| written.iter().find(|written| written.slot == *slot)).collect();
            if of_staff.is_empty() {
                continue;
            }
            let clef = part.clefs.get(staff).map_or("treble", String::as_str);
            for WrittenVoice { slot, number } in &of_staff {
                let voice = &part.voices[*slot];
                let mut clef = clef.to_owned();
                if clef.starts_with("tab") && !voice.stems && !clef.contains("nostems") {
                    clef.push_str(" nostems");
                }
                let mut drums = Vec::new();
                if !voice.drums.is_empty() && !clef.contains("perc") {
                    clef = format!("{clef} map=perc").trim().to_owned();
                }
                for (name, drum) in &voice.drums {
                    if pitch::midi(name) != drum.pitch || *name != drum.step {
                        let head = if drum.head.is_empty() { "normal" } else { &drum.head };
                        drums.push(format!("I:percmap {name} {} {} {head}\n", drum.step, drum.pitch));
                    }
                }
                self.lines.push(VoiceLine { number: *number, clef, drums });
            }
            staves.push(of_staff.iter().map(|written| written.number).collect());
        }
        self.parts.push(staves);
    }

    /// The header's lines.
    pub(super) fn header(&self, titles: &str, entries: &[PartListEntry], carried: &ScoreState) -> String {
        let layout = PartLayout::new(entries, &self.parts);
        let mut header = format!("X:1\n{titles}");
        if layout.signs.len() > 1 {
            header.push_str(&format!("%%score {}\n", layout.signs.join(" ")));
        }
        header.push_str(&format!("L:1/{UNIT}\n"));
        if let Some(tempo) = &carried.tempo {
            let (notes, of) = tempo.unit;
            header.push_str(&format!("Q:{notes}/{of}={}\n", tempo.rate));
        }
        header.push_str(&format!("M:{}\n", carried.meter.as_deref().unwrap_or("none")));
        header.push_str(&format!("K:{}\n", carried.key.as_deref().unwrap_or("none")));
        let mut names: Vec<Option<&Names>> =
            vec![None; 1 + self.lines.iter().map(|line| line.number).max().unwrap_or(0)];
        for (part, part_names) in self.parts.iter().zip(&layout.names) {
            if let Some(first) = part.first().and_then(|staff| staff.first()) {
                names[*first] = Some(part_names);
            }
        }
        for VoiceLine { number, clef, drums } in &self.lines {
            header.push_str(&format!("V:{number} {clef} "));
            if let Some(Names(name, abbreviation)) = names[*number] {
                let (name, abbreviation) = (quoted(name), quoted(abbreviation));
                if !name.is_empty() {
                    header.push_str(&format!("nm=\"{name}\""));
                }
                if !abbreviation.is_empty() {
                    header.push_str(&format!(" snm=\"{abbreviation}\""));
                }
            }
            header.push('\n');
            if clef.contains("perc") {
                header.push_str("K:none\n");
            }
            drums.iter().for_each(|line| header.push_str(line));
        }
        header
    }
}

/// A name on one line, without the colons left by groups without a name.
fn quoted(name: &str) -> String {
    name.replace('\n', "\\n").replace(".:", ".").trim_matches(':').to_owned()
}
