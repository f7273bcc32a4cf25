//! Pieces to look at and to take away: their notes as a picture, ABC, MusicXML and MIDI in links.
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};
use midly::{MetaMessage, MidiMessage, Smf, TrackEventKind};
use notation::export::{to_midi, to_musicxml};

/// Notes that a picture has at most: of longer pieces it shows the beginning.
const MOST_NOTES: usize = 1_500;

/// One piece.
pub struct Score {
    name: String,
    abc: String,
    musicxml: Option<String>,
    midi: Option<Vec<u8>>,
}

impl Score {
    /// Reads a piece and makes the other formats of it; what cannot be made is left out.
    pub fn read(path: &Path) -> Option<Score> {
        let abc = fs::read_to_string(path).ok()?;
        let name = path.file_stem()?.to_string_lossy().into_owned();
        let musicxml = to_musicxml(&abc, &name).ok().map(|score| score.output);
        let midi = to_midi(&abc, &name).ok().map(|score| score.output);
        Some(Score { name, abc, musicxml, midi })
    }

    /// A card with the piece, under a prefix that keeps names of several folders apart.
    pub fn card(&self, prefix: &str) -> Markup {
        let file = |end: &str| format!("{prefix}-{}.{end}", self.name);
        let bars = self.abc.lines().filter(|line| line.starts_with("[V:")).count();
        html! {
            article.score {
                h4 { (prefix) " · " (self.name) }
                p.small { (self.about()) (bars) @if bars == 1 { " bar" } @else { " bars" } }
                @if let Some(midi) = &self.midi { (roll(midi)) }
                p.links {
                    a download=(file("abc")) href=(link("text/vnd.abc", self.abc.as_bytes())) { "ABC" }
                    @match &self.musicxml {
                        Some(xml) => a download=(file("musicxml")) href=(link("application/vnd.recordare.musicxml+xml", xml.as_bytes())) { "MusicXML" },
                        None => span.none { "no MusicXML" },
                    }
                    @match &self.midi {
                        Some(midi) => a download=(file("mid")) href=(link("audio/midi", midi)) { "MIDI" },
                        None => span.none { "no MIDI" },
                    }
                }
                details { summary { "ABC" } pre { (self.abc) } }
            }
        }
    }

    /// Metre and key from the header.
    fn about(&self) -> String {
        let field = |name: &str| self.abc.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let said = [("M:", ""), ("K:", "key ")];
        said.iter().filter_map(|(name, word)| Some(format!("{word}{}, ", field(name)?))).collect()
    }
}

fn link(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

/// The pieces of a folder, in the order of their names, at most so many.
pub fn files(folder: &Path, most: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "abc")).collect();
    files.sort();
    files.truncate(most);
    files
}

struct Note {
    start: u64,
    end: u64,
    pitch: u8,
    track: usize,
}

/// The notes over time, a colour a voice.
fn roll(midi: &[u8]) -> Markup {
    let notes = notes(midi);
    let (Some(low), Some(high), Some(end)) = (
        notes.iter().map(|note| note.pitch).min(),
        notes.iter().map(|note| note.pitch).max(),
        notes.iter().map(|note| note.end).max(),
    ) else {
        return html! { p.small { "no notes" } };
    };
    let (width, height) = (400.0, 110.0);
    let row = (height / f64::from(high - low + 1)).min(6.0);
    let across = |tick: u64| tick as f64 / end.max(1) as f64 * width;
    html! {
        svg.roll viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" role="img" aria-label="its notes over time" {
            @for note in &notes {
                rect class=(format!("voice-{}", note.track % 4))
                    x=(format!("{:.1}", across(note.start)))
                    y=(format!("{:.1}", (height - row * f64::from(high - low + 1)) / 2.0 + row * f64::from(high - note.pitch)))
                    width=(format!("{:.1}", (across(note.end) - across(note.start) - 0.4).max(0.6)))
                    height=(format!("{:.1}", (row - 0.5).max(0.6))) {}
            }
        }
    }
}

fn notes(midi: &[u8]) -> Vec<Note> {
    let Ok(file) = Smf::parse(midi) else { return Vec::new() };
    let mut notes: Vec<Note> = Vec::new();
    for (number, track) in file.tracks.iter().enumerate() {
        let (mut now, mut sounding) = (0_u64, Vec::<(u8, u64)>::new());
        for event in track {
            now += u64::from(event.delta.as_int());
            let (pitch, on) = match event.kind {
                TrackEventKind::Midi { message: MidiMessage::NoteOn { key, vel }, .. } => {
                    (key.as_int(), vel.as_int() > 0)
                }
                TrackEventKind::Midi { message: MidiMessage::NoteOff { key, .. }, .. } => (key.as_int(), false),
                TrackEventKind::Meta(MetaMessage::EndOfTrack) => break,
                _ => continue,
            };
            if on {
                sounding.push((pitch, now));
            } else if let Some(place) = sounding.iter().position(|(sounds, _)| *sounds == pitch) {
                let (_, start) = sounding.remove(place);
                notes.push(Note { start, end: now, pitch, track: number });
            }
        }
    }
    notes.sort_by_key(|note| note.start);
    notes.truncate(MOST_NOTES);
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: &str =
        "X:1\nT:<script>alert(\"x\")</script>\nL:1/8\nM:4/4\nK:C\nV:1 treble nm=\"<b>&\"\n[V:1]C2 E2 G4|\n[V:1]c8|]\n";

    #[test]
    fn nothing_of_a_piece_becomes_part_of_the_page() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a<i>&\"b.abc");
        fs::write(&path, PIECE).unwrap();
        let card = Score::read(&path).unwrap().card("stage").into_string();
        for tag in ["<script", "<b>", "<i>", "a<", "&\"b"] {
            assert!(!card.contains(tag), "{tag} in {card}");
        }
        assert!(card.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;"), "{card}");
        assert!(card.contains("4/4, key C, 2 bars"), "{card}");
        assert_eq!(card.matches("<rect").count(), 4);
    }

    #[test]
    fn links_hold_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.abc");
        fs::write(&path, PIECE).unwrap();
        let card = Score::read(&path).unwrap().card("stage").into_string();
        let of = |kind: &str| {
            let start = format!("data:{kind};base64,");
            let rest = card.split(&start).nth(1).unwrap();
            BASE64_STANDARD.decode(rest.split('"').next().unwrap()).unwrap()
        };
        assert_eq!(of("text/vnd.abc"), PIECE.as_bytes());
        assert!(of("audio/midi").starts_with(b"MThd"));
        assert!(String::from_utf8(of("application/vnd.recordare.musicxml+xml")).unwrap().contains("<score-partwise"));
        fs::write(&path, "no music").unwrap();
        assert!(Score::read(&path).unwrap().card("stage").into_string().contains("no MIDI"));
    }
}
