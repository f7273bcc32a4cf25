//! A voice while it is read: the state that lasts from note to note, and the current bar.

use std::collections::HashMap;

use super::diagnostics::{Diagnostics, LineColumn};
use super::header::VoiceAttributes;
use super::lyrics::{LyricToken, syllables};
use super::scan::{MusicScanner, WrittenNote};
use super::score::{
    AbcEvent, AbcMark, AbcNote, AbcVoice, Bar, BarLine, BarLineStyle, Chord, KeySignature, Meter, Slur, Syllable,
    Tuplet, WHOLE,
};

/// Layers of a bar: the voice, and what `&` adds. More are written one after the other.
const MOST_LAYERS: usize = 8;

/// The most ticks of a note.
const LONGEST: i128 = 64 * WHOLE as i128;

/// A chord or a rest as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct WrittenChord {
    pub notes: Vec<WrittenNote>,
    pub length: (i64, i64),
    pub invisible: bool,
    pub whole_bar: bool,
}

struct OpenTie {
    at: LineColumn,
    alter: i8,
    bar: usize,
    event: usize,
    note: usize,
}

struct OpenTuplet {
    actual: u32,
    normal: u32,
    left: u32,
    nominal: i64,
    ticks: i64,
}

/// The place of a percussion note on the staff, and its sound.
#[derive(Clone, Copy)]
pub(crate) struct DrumSound {
    pub step: u8,
    pub octave: i8,
    pub sound: u8,
}

/// Reads a voice.
#[derive(Default)]
pub(crate) struct VoiceReader {
    pub voice: AbcVoice,
    pub unit: (i64, i64),
    alters: [i8; 7],
    octave: i8,
    meter: i64,
    pub drums: HashMap<(u8, i8, Option<i8>), DrumSound>,
    /// The current bar.
    bar: Bar,
    layer: usize,
    /// The bar has a note or a rest.
    timed: bool,
    /// The bar has an event.
    begun: bool,
    accidentals: HashMap<(u8, i8), i8>,
    ties: HashMap<(usize, u8, i8), OpenTie>,
    /// The index of the last chord in the bar.
    last: Option<usize>,
    decorations: Vec<String>,
    slur_starts: Vec<bool>,
    pub space: bool,
    tuplet: Option<OpenTuplet>,
    broken: i32,
    /// The slurs that are open, by layer.
    slurs: Vec<Vec<u32>>,
    /// The last chord of each layer: its bar and index.
    latest: [Option<(usize, usize)>; MOST_LAYERS],
    next_slur: u32,
    /// The chords (bar and event) since the last line of lyrics.
    unsung: Vec<(usize, usize)>,
    /// The chords that the current lines of lyrics are for.
    sung: Vec<(usize, usize)>,
    verse: usize,
    /// There was a note since `[V:…]`.
    pub sounded: bool,
    /// The number of bars at `[V:…]`.
    segment: usize,
}

/// A fraction of a whole note in ticks, rounded and limited.
fn ticks(unit: (i64, i64), length: (i64, i64), more: (i64, i64)) -> i64 {
    rounded(unit, length, more).clamp(1, LONGEST) as i64
}

fn rounded(unit: (i64, i64), length: (i64, i64), more: (i64, i64)) -> i128 {
    let numerator = i128::from(WHOLE) * i128::from(unit.0) * i128::from(length.0) * i128::from(more.0);
    let denominator = (i128::from(unit.1) * i128::from(length.1) * i128::from(more.1)).max(1);
    (numerator + denominator / 2) / denominator
}

impl VoiceReader {
    pub fn new(id: &str, unit: (i64, i64), key: Option<&KeySignature>, meter: Option<&Meter>) -> VoiceReader {
        let mut reader = VoiceReader {
            voice: AbcVoice { id: id.to_owned(), ..AbcVoice::default() },
            unit,
            meter: WHOLE,
            bar: Bar { layers: vec![Vec::new()], ..Bar::default() },
            slurs: vec![Vec::new(); MOST_LAYERS],
            ..VoiceReader::default()
        };
        if let Some(key) = key {
            reader.key(key.clone(), LineColumn::default());
        }
        if let Some(meter) = meter {
            reader.meter(meter.clone(), LineColumn::default());
        }
        reader
    }

    /// The number of the current bar, counted from 1.
    pub fn number(&self) -> usize {
        self.voice.bars.len() + 1
    }

    fn fresh(&self) -> bool {
        self.voice.bars.is_empty() && self.bar.layers.iter().all(Vec::is_empty)
    }

    fn event(&mut self, event: AbcEvent, at: LineColumn) -> usize {
        if !self.begun {
            self.begun = true;
            self.bar.at = at;
        }
        let layer = &mut self.bar.layers[self.layer];
        layer.push(event);
        layer.len() - 1
    }

    pub fn mark(&mut self, mark: AbcMark, at: LineColumn) {
        self.event(AbcEvent::Mark(mark), at);
    }

    pub fn key(&mut self, key: KeySignature, at: LineColumn) {
        self.alters = key.alters;
        if self.fresh() {
            self.voice.key = Some(key);
        } else {
            self.event(AbcEvent::Mark(AbcMark::Key(key)), at);
        }
    }

    pub fn meter(&mut self, meter: Meter, at: LineColumn) {
        self.meter = meter.length;
        if self.fresh() {
            self.voice.meter = Some(meter);
        } else {
            self.event(AbcEvent::Mark(AbcMark::Meter(meter)), at);
        }
    }

    pub fn attributes(&mut self, found: VoiceAttributes, at: LineColumn) {
        let voice = &mut self.voice;
        if let Some(name) = found.name.filter(|name| !name.is_empty()) {
            voice.name = name;
        }
        if let Some(name) = found.short_name.filter(|name| !name.is_empty()) {
            voice.short_name = name;
        }
        voice.transpose = found.transpose.unwrap_or(voice.transpose);
        voice.staff_lines = found.staff_lines.or(voice.staff_lines);
        voice.percussion = found.percussion.unwrap_or(voice.percussion);
        self.octave = found.octave.unwrap_or(self.octave);
        if let Some(clef) = found.clef {
            if self.fresh() {
                self.voice.clef = Some(clef);
            } else {
                self.event(AbcEvent::Mark(AbcMark::Clef(clef)), at);
            }
        }
    }

    pub fn decoration(&mut self, name: &str) {
        self.decorations.push(name.to_owned());
    }

    pub fn slur_start(&mut self, dotted: bool) {
        self.slur_starts.push(dotted);
    }

    pub fn slur_stop(&mut self, at: LineColumn, diagnostics: &mut Diagnostics) {
        let layer = self.layer;
        let Some((bar, event)) = self.latest[layer].filter(|_| !self.slurs[layer].is_empty()) else {
            return self.warn(at, "a slur ends that has not begun; left out", diagnostics);
        };
        let Some(id) = self.slurs[layer].pop() else { return };
        if let Some(AbcEvent::Chord(chord)) = self.at(bar, layer, event) {
            chord.slurs.push(Slur { id, start: false, dotted: false });
        }
    }

    fn at(&mut self, bar: usize, layer: usize, event: usize) -> Option<&mut AbcEvent> {
        let bar = if bar == self.voice.bars.len() { &mut self.bar } else { self.voice.bars.get_mut(bar)? };
        bar.layers.get_mut(layer)?.get_mut(event)
    }

    pub fn tuplet(&mut self, actual: u32, normal: u32, notes: u32) {
        self.stop_tuplet();
        self.tuplet = Some(OpenTuplet { actual, normal, left: notes, nominal: 0, ticks: 0 });
    }

    fn stop_tuplet(&mut self) {
        if self.tuplet.take().is_some()
            && let Some(last) = self.last
            && let Some(AbcEvent::Chord(chord)) = self.bar.layers[self.layer].get_mut(last)
            && let Some(tuplet) = &mut chord.tuplet
        {
            tuplet.stop = true;
        }
    }

    /// Counts the signs of a broken rhythm: `>` up, `<` down.
    pub fn broken(&mut self, sign: i32, at: LineColumn, diagnostics: &mut Diagnostics) {
        if self.last.is_none() {
            self.warn(at, "a broken rhythm without a note before it; left out", diagnostics);
        } else {
            self.broken = (self.broken + sign).clamp(-3, 3);
        }
    }

    /// A tie that is written apart from its note.
    pub fn tie(&mut self, at: LineColumn, diagnostics: &mut Diagnostics) {
        let Some(last) = self.last else {
            return self.warn(at, "a tie without a note before it; left out", diagnostics);
        };
        let (bar, layer) = (self.voice.bars.len(), self.layer);
        let Some(AbcEvent::Chord(chord)) = self.bar.layers[layer].get_mut(last) else { return };
        for (note, sounding) in chord.notes.iter_mut().enumerate() {
            sounding.tie_start = true;
            let tie = OpenTie { at, alter: sounding.alter, bar, event: last, note };
            self.ties.insert((layer, sounding.step, sounding.octave), tie);
        }
    }

    pub fn grace(&mut self, written: Vec<WrittenChord>, slash: bool, at: LineColumn) {
        let chords = written
            .into_iter()
            .map(|chord| Chord {
                notes: chord.notes.iter().map(|note| self.note(note, (1, 1), false)).collect(),
                nominal: ticks(self.unit, chord.length, (1, 1)),
                ..Chord::default()
            })
            .filter(|chord| !chord.notes.is_empty())
            .collect::<Vec<_>>();
        if !chords.is_empty() {
            self.event(AbcEvent::Grace(chords, slash), at);
        }
    }

    /// The note with its pitch. Its alteration is that of a tie, a written accidental, the bar or the key, in this order.
    fn note(&mut self, written: &WrittenNote, length: (i64, i64), closes: bool) -> AbcNote {
        let octave = written.octave.saturating_add(self.octave).clamp(-2, 11);
        let step = written.step;
        let nominal = ticks(self.unit, written.length, length);
        if self.voice.percussion {
            return self.drum(written, octave, nominal);
        }
        let tie = (self.layer, step, octave);
        let tied = if closes { self.ties.remove(&tie) } else { None };
        let alter = match (tied.as_ref().or_else(|| self.ties.get(&tie)), written.accidental) {
            (Some(tie), _) => tie.alter,
            (None, Some(alter)) => {
                self.accidentals.insert((step, octave), alter);
                alter
            }
            (None, None) => self.accidentals.get(&(step, octave)).copied().unwrap_or(self.alters[usize::from(step)]),
        };
        let accidental = written.accidental.filter(|_| tied.is_none());
        AbcNote {
            step,
            octave,
            alter,
            accidental,
            nominal,
            tie_start: written.tie,
            tie_stop: tied.is_some(),
            drum: None,
        }
    }

    fn drum(&mut self, written: &WrittenNote, octave: i8, nominal: i64) -> AbcNote {
        let plain = AbcNote {
            step: written.step,
            octave,
            alter: written.accidental.unwrap_or(0),
            nominal,
            ..AbcNote::default()
        };
        let sound = plain.midi().clamp(0, 127) as u8;
        let drum = self.drums.get(&(written.step, octave, written.accidental)).copied();
        let Some(DrumSound { mut step, mut octave, sound }) = drum else {
            return AbcNote { alter: 0, drum: Some(sound), ..plain };
        };
        if self.voice.clef.as_ref().is_some_and(|clef| clef.sign == "F") {
            // Places on the staff are those of the treble clef.
            let place = i32::from(octave) * 7 + i32::from(step) - 12;
            (step, octave) = (place.rem_euclid(7) as u8, place.div_euclid(7) as i8);
        }
        AbcNote { step, octave, alter: 0, drum: Some(sound), ..plain }
    }

    pub fn chord(&mut self, written: WrittenChord, at: LineColumn, diagnostics: &mut Diagnostics) {
        let (bar, layer) = (self.voice.bars.len(), self.layer);
        let too_long = |own| rounded(self.unit, written.length, own) > LONGEST;
        if written.notes.iter().any(|note| too_long(note.length)) || written.notes.is_empty() && too_long((1, 1)) {
            self.warn(at, "longer than 64 whole notes; cut to that", diagnostics);
        }
        let notes: Vec<AbcNote> = written.notes.iter().map(|note| self.note(note, written.length, true)).collect();
        let mut nominal = notes.first().map_or_else(|| ticks(self.unit, written.length, (1, 1)), |note| note.nominal);
        if written.whole_bar {
            nominal = self.meter;
        }
        self.untie(diagnostics);
        let mut chord = Chord {
            nominal,
            ticks: nominal,
            invisible: written.invisible,
            whole_bar: written.whole_bar,
            decorations: std::mem::take(&mut self.decorations),
            space_before: std::mem::take(&mut self.space) || self.last.is_none(),
            notes,
            ..Chord::default()
        };
        self.break_rhythm(&mut chord);
        if let Some(tuplet) = &mut self.tuplet {
            let start = tuplet.nominal == 0;
            tuplet.nominal += chord.nominal;
            // The sum is rounded, so that the notes add up to it.
            let end = i128::from(tuplet.nominal) * i128::from(tuplet.normal) / i128::from(tuplet.actual);
            chord.ticks = (end as i64 - tuplet.ticks).max(1);
            tuplet.ticks += chord.ticks;
            tuplet.left -= 1;
            let stop = tuplet.left == 0;
            chord.tuplet = Some(Tuplet { actual: tuplet.actual, normal: tuplet.normal, start, stop });
            if stop {
                self.tuplet = None;
            }
        }
        for dotted in std::mem::take(&mut self.slur_starts) {
            let id = self.next_slur;
            self.next_slur += 1;
            self.slurs[layer].push(id);
            chord.slurs.push(Slur { id, start: true, dotted });
        }
        let event = self.bar.layers[layer].len();
        for (note, sounding) in chord.notes.iter().enumerate() {
            if sounding.tie_start {
                let tie = OpenTie { at, alter: sounding.alter, bar, event, note };
                self.ties.insert((layer, sounding.step, sounding.octave), tie);
            }
        }
        if !chord.notes.is_empty() {
            self.sounded = true;
            if layer == 0 {
                self.unsung.push((bar, event));
            }
        }
        self.event(AbcEvent::Chord(chord), at);
        self.last = Some(event);
        self.latest[layer] = Some((bar, event));
        self.timed = true;
    }

    /// Removes the ties that the new chord does not continue.
    fn untie(&mut self, diagnostics: &mut Diagnostics) {
        let layer = self.layer;
        if self.ties.is_empty() {
            return;
        }
        let mut loose: Vec<OpenTie> = Vec::new();
        let keys: Vec<_> = self.ties.keys().filter(|key| key.0 == layer).copied().collect();
        for key in keys {
            loose.extend(self.ties.remove(&key));
        }
        // All of them are of one chord.
        if let Some(tie) = loose.first() {
            let problem = "a tie to a note that does not follow; left out";
            diagnostics.add(tie.at, &self.voice.id, tie.bar + 1, problem);
        }
        for tie in loose {
            if let Some(AbcEvent::Chord(chord)) = self.at(tie.bar, layer, tie.event)
                && let Some(note) = chord.notes.get_mut(tie.note)
            {
                note.tie_start = false;
            }
        }
    }

    fn break_rhythm(&mut self, chord: &mut Chord) {
        let count = std::mem::take(&mut self.broken);
        let Some(last) = self.last.filter(|_| count != 0) else { return };
        let power = 1 << count.unsigned_abs();
        let long = (2 * power - 1, power);
        let (before, after) = if count > 0 { (long, (1, power)) } else { ((1, power), long) };
        let scaled = |ticks: i64, (n, d): (i64, i64)| (ticks.min(i64::MAX / 16) * n / d).max(1);
        let scale = |chord: &mut Chord, by| {
            chord.nominal = scaled(chord.nominal, by);
            chord.ticks = scaled(chord.ticks, by);
            for note in &mut chord.notes {
                note.nominal = scaled(note.nominal, by);
            }
        };
        if let Some(AbcEvent::Chord(previous)) = self.bar.layers[self.layer].get_mut(last) {
            let old = (previous.nominal, previous.ticks);
            scale(previous, before);
            if let (Some(tuplet), true) = (&mut self.tuplet, previous.tuplet.is_some()) {
                tuplet.nominal += previous.nominal - old.0;
                tuplet.ticks += previous.ticks - old.1;
            }
        }
        scale(chord, after);
    }

    /// `&`: what follows sounds at the same time as the bar so far.
    pub fn overlay(&mut self, at: LineColumn, diagnostics: &mut Diagnostics) {
        if self.layer + 1 >= MOST_LAYERS {
            return self.warn(at, "too many voices in one (`&`); written one after the other", diagnostics);
        }
        self.stop_tuplet();
        self.layer += 1;
        self.bar.layers.push(Vec::new());
        self.accidentals.clear();
        (self.last, self.broken) = (None, 0);
    }

    /// A bar line. It ends the bar, or is added to the bar line before if the bar is empty.
    pub fn bar_line(&mut self, line: BarLine, closes_empty: bool, at: LineColumn) {
        let next = BarLine { repeat_start: line.repeat_start, ending: line.ending.clone(), ..BarLine::default() };
        if self.timed || closes_empty {
            if !self.begun {
                self.bar.at = at;
            }
            self.close(BarLine { repeat_start: false, ending: String::new(), ..line });
            self.bar.left = next;
            return;
        }
        if let Some(before) = self.voice.bars.last_mut() {
            before.right.repeat_end |= line.repeat_end;
            before.right.style = before.right.style.max(line.style);
        }
        self.bar.left.repeat_start |= next.repeat_start;
        if !next.ending.is_empty() {
            self.bar.left.ending = next.ending;
        }
    }

    fn close(&mut self, right: BarLine) {
        self.stop_tuplet();
        let mut bar = std::mem::replace(&mut self.bar, Bar { layers: vec![Vec::new()], ..Bar::default() });
        bar.right = right;
        self.voice.bars.push(bar);
        self.accidentals.clear();
        (self.layer, self.last, self.broken) = (0, None, 0);
        (self.timed, self.begun, self.space) = (false, false, false);
    }

    /// `[V:…]` in interleaved ABC.
    pub fn start_segment(&mut self) {
        self.sounded = false;
        self.segment = self.voice.bars.len();
    }

    /// Whether the text of a voice, which is only a bar line, ends here.
    pub fn empty_segment(&self, scan: &MusicScanner) -> bool {
        let rest = scan.rest().trim_start();
        !self.timed && self.voice.bars.len() == self.segment && (rest.is_empty() || rest.starts_with("[V:"))
    }

    /// Ends a bar that has no bar line.
    pub fn end(&mut self, at: LineColumn, diagnostics: &mut Diagnostics) {
        if self.timed {
            self.warn(at, "no bar line at its end", diagnostics);
            self.close(BarLine { style: BarLineStyle::Single, ..BarLine::default() });
        }
    }

    /// Adds bars that the text does not have, up to `bars`.
    pub fn fill(&mut self, bars: usize, at: LineColumn) {
        while self.voice.bars.len() < bars {
            let left = std::mem::take(&mut self.bar.left);
            let bar = Bar { at, layers: vec![Vec::new()], left, missing: true, ..Bar::default() };
            self.voice.bars.push(bar);
        }
    }

    pub fn warn(&self, at: LineColumn, problem: &str, diagnostics: &mut Diagnostics) {
        diagnostics.add(at, &self.voice.id, self.number(), problem);
    }

    /// A line of music begins. Lyrics after it are for its notes.
    pub fn music_line(&mut self) {
        if self.verse > 0 {
            self.verse = 0;
            self.sung.clear();
        }
    }

    /// A `w:` line, for the music since the lyrics before.
    pub fn lyrics(&mut self, text: &str) {
        if self.verse == 0 {
            self.sung = std::mem::take(&mut self.unsung);
        }
        let verse = self.verse;
        self.verse += 1;
        if verse >= 16 {
            return;
        }
        let sung = std::mem::take(&mut self.sung);
        let mut next = 0;
        let mut bar = sung.first().map_or(0, |(bar, _)| *bar);
        for syllable in syllables(text) {
            match syllable {
                LyricToken::Bar => {
                    while sung.get(next).is_some_and(|(of, _)| *of <= bar) {
                        next += 1;
                    }
                    bar += 1;
                }
                LyricToken::Skip => next += 1,
                LyricToken::Syllable(syllable) => {
                    let Some(place) = sung.get(next) else { break };
                    bar = place.0;
                    self.sing(*place, verse, syllable);
                    next += 1;
                }
            }
        }
        self.sung = sung;
    }

    fn sing(&mut self, (bar, event): (usize, usize), verse: usize, syllable: Syllable) {
        if let Some(AbcEvent::Chord(chord)) = self.at(bar, 0, event) {
            chord.lyrics.resize(verse, None);
            chord.lyrics.push(Some(syllable));
        }
    }

    /// Ends the voice, and removes slurs and ties that are still open.
    pub fn finish(mut self, diagnostics: &mut Diagnostics) -> AbcVoice {
        let open: std::collections::HashSet<u32> = self.slurs.iter().flatten().copied().collect();
        let ties: Vec<_> = self.ties.drain().map(|((layer, ..), tie)| (layer, tie)).collect();
        for (layer, tie) in ties {
            if let Some(AbcEvent::Chord(chord)) = self.at(tie.bar, layer, tie.event)
                && let Some(note) = chord.notes.get_mut(tie.note)
            {
                note.tie_start = false;
            }
        }
        if open.is_empty() {
            return self.voice;
        }
        for (number, bar) in self.voice.bars.iter_mut().enumerate() {
            for event in bar.layers.iter_mut().flatten() {
                if let AbcEvent::Chord(chord) = event {
                    let before = chord.slurs.len();
                    chord.slurs.retain(|slur| !open.contains(&slur.id));
                    if chord.slurs.len() < before {
                        diagnostics.add(
                            bar.at,
                            &self.voice.id,
                            number + 1,
                            "a slur begins that does not end; left out",
                        );
                    }
                }
            }
        }
        self.voice
    }
}
