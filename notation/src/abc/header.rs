//! Reads the contents of fields: keys, meters, lengths, tempos, voices.

use super::score::{Clef, KeySignature, Meter, Tempo, WHOLE};

/// Letters in the order of sharps.
const SHARPS: [usize; 7] = [3, 0, 4, 1, 5, 2, 6];

/// Tempo words, and the quarter notes per minute that they mean.
#[rustfmt::skip]
const TEMPOS: [(&str, f64); 19] = [
    ("larghissimo", 40.0), ("adagissimo", 44.0), ("lentissimo", 48.0), ("largo", 56.0), ("adagio", 59.0),
    ("lento", 62.0), ("larghetto", 66.0), ("adagietto", 76.0), ("andante", 88.0), ("andantino", 96.0),
    ("moderato", 104.0), ("allegretto", 112.0), ("allegro", 120.0), ("vivace", 168.0), ("vivo", 180.0),
    ("presto", 192.0), ("allegrissimo", 208.0), ("vivacissimo", 220.0), ("prestissimo", 240.0),
];

/// Clefs: how their names begin, their signs and lines.
const CLEFS: [(&str, &str, u8); 10] = [
    ("alto1", "C", 1),
    ("alto2", "C", 2),
    ("alto4", "C", 4),
    ("alto", "C", 3),
    ("tenor", "C", 4),
    ("bass3", "F", 3),
    ("bass", "F", 4),
    ("treble", "G", 2),
    ("perc", "percussion", 0),
    ("tab", "TAB", 5),
];

/// The index of a letter in C D E F G A B.
pub(crate) fn step(letter: u8) -> Option<usize> {
    b"CDEFGAB".iter().position(|l| *l == letter.to_ascii_uppercase())
}

/// The key of a `K:` field. It may have none, but a clef.
pub(crate) fn key(field: &str) -> Option<KeySignature> {
    let field = field.trim();
    let bytes = field.as_bytes();
    let mut key = match bytes.first() {
        Some(letter @ b'A'..=b'G') => {
            let sign = bytes.get(1).filter(|sign| matches!(sign, b'#' | b'b')).copied();
            let rest = field[1 + usize::from(sign.is_some())..].trim_start();
            let mode: String = rest.chars().take_while(char::is_ascii_alphabetic).take(3).collect();
            let (mode, shift) = self::mode(&mode).unwrap_or(("major", 0));
            let natural = SHARPS.iter().position(|s| Some(*s) == step(*letter)).unwrap_or(0) as i8 - 1;
            let tonic = natural + sign.map_or(0, |sign| if sign == b'#' { 7 } else { -7 });
            let fifths = (tonic + shift).clamp(-7, 7);
            let mut alters = [0; 7];
            for place in 0..usize::from(fifths.unsigned_abs()) {
                if fifths > 0 { alters[SHARPS[place]] = 1 } else { alters[SHARPS[6 - place]] = -1 }
            }
            KeySignature { fifths, mode, alters, explicit: false }
        }
        _ if field.starts_with("none") => KeySignature { mode: "major", ..KeySignature::default() },
        _ => KeySignature::default(),
    };
    // Explicit accidentals: `K:D =c ^g`.
    for word in field.split_whitespace() {
        let mut rest = word;
        while let Some(sign @ (b'^' | b'_' | b'=')) = rest.as_bytes().first()
            && let Some(place) = rest.as_bytes().get(1).and_then(|letter| step(*letter))
        {
            key.alters[place] = match sign {
                b'^' => 1,
                b'_' => -1,
                _ => 0,
            };
            key.explicit = true;
            rest = &rest[2..];
        }
    }
    (key.explicit || !key.mode.is_empty()).then_some(key)
}

/// The name of the mode with these first three letters, and its distance to major in fifths.
fn mode(letters: &str) -> Option<(&'static str, i8)> {
    Some(match letters.to_ascii_lowercase().as_str() {
        "" | "maj" | "ion" => ("major", 0),
        "m" | "min" => ("minor", -3),
        "aeo" => ("aeolian", -3),
        "mix" => ("mixolydian", -1),
        "dor" => ("dorian", -2),
        "phr" => ("phrygian", -4),
        "lyd" => ("lydian", 1),
        "loc" => ("locrian", -5),
        _ => return None,
    })
}

/// Whether a `K:` field begins with a key that [`key`] knows, or with something else that is allowed.
pub(crate) fn is_key(field: &str) -> bool {
    let word = field.split_whitespace().next().unwrap_or_default();
    let Some(rest) = word.strip_prefix(|letter| ('A'..='G').contains(&letter)) else {
        return matches!(word, "" | "none" | "exp")
            || word.starts_with(['^', '_'])
            || word.contains('=')
            || CLEFS.iter().any(|(name, ..)| word.starts_with(name));
    };
    let rest = rest.strip_prefix(['#', 'b']).unwrap_or(rest);
    let (letters, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()));
    mode(letters.get(..3).unwrap_or(letters)).is_some() && (rest.is_empty() || rest.starts_with(['^', '_', '=']))
}

/// The meter of an `M:` field; `None` for `none`; an error for anything else.
pub(crate) fn meter(field: &str) -> Result<Option<Meter>, ()> {
    let (text, symbol) = match field.trim() {
        "none" | "" => return Ok(None),
        "C" => ("4/4", Some("common")),
        "C|" => ("2/2", Some("cut")),
        other => (other, None),
    };
    let (beats, beat_type) = text.split_once('/').ok_or(())?;
    let beats = beats.trim().trim_matches(['(', ')']).replace(' ', "");
    let mut sum = 0;
    for beat in beats.split('+') {
        sum += number(beat).filter(|beat| (1..=256).contains(beat)).ok_or(())?;
    }
    let beat_type = number(beat_type.trim()).filter(|n| (1..=128).contains(n)).ok_or(())?;
    if beats.len() > 20 {
        return Err(());
    }
    Ok(Some(Meter { beats, beat_type: beat_type as u32, symbol, length: WHOLE * sum / beat_type }))
}

/// The unit of an `L:` field, numerator and denominator.
pub(crate) fn unit(field: &str) -> Option<(i64, i64)> {
    let (n, d) = field.trim().split_once('/')?;
    let (n, d) = (number(n)?, number(d)?);
    ((1..=64).contains(&n) && (1..=512).contains(&d) && d.count_ones() == 1).then_some((n, d))
}

/// The tempo of a `Q:` field. `unit` is the beat of the old form `Q:120`.
pub(crate) fn tempo(field: &str, unit: (i64, i64)) -> Option<Tempo> {
    let (mut rest, mut text) = (field.to_owned(), String::new());
    if let Some(start) = field.find('"') {
        let end = field[start + 1..].find('"').map_or(field.len(), |end| start + 1 + end);
        text = field[start + 1..end].to_owned();
        rest = format!("{} {}", &field[..start], field.get(end + 1..).unwrap_or_default());
    }
    let named = TEMPOS.iter().find(|(name, _)| *name == text.trim().to_lowercase()).map_or(120.0, |(_, bpm)| *bpm);
    let numbers: String = rest.chars().filter(|c| c.is_ascii_digit() || "/=.".contains(*c)).collect();
    let beat = match numbers.split_once('=') {
        Some((value, bpm)) => value.split_once('/').and_then(|(n, d)| {
            let (n, d) = (number(n)?, number(d)?);
            let sane = (1..=64).contains(&n) && (1..=512).contains(&d);
            Some((n as u32, d as u32, speed(bpm)?)).filter(|_| sane)
        }),
        None => speed(&numbers).map(|bpm| (1, unit.1 as u32, bpm)),
    };
    let quarters = beat.map_or(named, |(n, d, bpm)| 4.0 * f64::from(n) * bpm / f64::from(d));
    (beat.is_some() || !text.is_empty()).then_some(Tempo { text, beat, quarters })
}

fn speed(text: &str) -> Option<f64> {
    text.parse().ok().filter(|bpm: &f64| (1.0..=2000.0).contains(bpm))
}

/// A number without sign, of at most nine digits.
pub(crate) fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// The attributes of a voice, in a `V:` or a `K:` field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VoiceAttributes {
    pub name: Option<String>,
    pub short_name: Option<String>,
    pub clef: Option<Clef>,
    /// How many octaves higher the notes are than written.
    pub octave: Option<i8>,
    pub transpose: Option<i32>,
    pub staff_lines: Option<u8>,
    pub percussion: Option<bool>,
}

/// Words; spaces between quotes do not separate.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    })
    .filter(|word| !word.is_empty())
}

pub(crate) fn attributes(field: &str) -> VoiceAttributes {
    let mut found = VoiceAttributes::default();
    for word in words(field) {
        let (name, value) = word.split_once('=').unwrap_or(("", word));
        let text = || Some(name_text(value));
        match name {
            "nm" | "name" => found.name = text(),
            "snm" | "sname" | "subname" => found.short_name = text(),
            "t" | "transpose" => found.transpose = value.parse().ok().filter(|t: &i32| t.abs() <= 60),
            "octave" => {
                let octaves: Option<i8> = value.parse().ok().filter(|o: &i8| o.abs() <= 4);
                found.octave = octaves.map(|octaves| found.octave.unwrap_or(0) + octaves);
            }
            "stafflines" => found.staff_lines = value.parse().ok().filter(|lines| (1..=9).contains(lines)),
            "perc" | "map" => found.percussion = Some(matches!(value, "on" | "true" | "perc")),
            "m" | "middle" => middle(value, &mut found),
            "" | "clef" => clef(value, &mut found),
            _ => {}
        }
    }
    found
}

/// The name without quotes, and without the line breaks and indents that exporters leave in it.
fn name_text(value: &str) -> String {
    let text = value.replace('"', "").replace("\\n", " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.trim_start_matches([':', ' ']).to_owned()
}

fn clef(word: &str, found: &mut VoiceAttributes) {
    let Some((name, sign, line)) = CLEFS.iter().find(|(name, ..)| word.starts_with(name)) else { return };
    let mut octave = 0;
    let mut shift = 0;
    let mut rest = word[name.len()..].chars();
    if let Some(sign @ ('+' | '-' | '^' | '_')) = rest.next() {
        octave = match rest.as_str() {
            "8" => 1,
            "15" => 2,
            _ => 0,
        };
        if matches!(sign, '-' | '_') {
            octave = -octave;
        }
        if matches!(sign, '+' | '-') {
            shift = octave;
        }
    }
    if *sign == "percussion" {
        found.percussion = Some(true);
    }
    found.octave = Some(found.octave.unwrap_or(0) + shift);
    found.clef = Some(Clef { sign, line: *line, octave });
}

/// The clef by the note on the middle line.
fn middle(value: &str, found: &mut VoiceAttributes) {
    let Some(letter) = value.bytes().next().filter(|letter| step(*letter).is_some()) else { return };
    let (sign, line) = match letter.to_ascii_uppercase() {
        b'B' => ("G", 2),
        b'G' => ("C", 1),
        b'E' => ("C", 2),
        b'C' => ("C", 3),
        b'A' => ("C", 4),
        b'F' => ("F", 3),
        _ => ("F", 4),
    };
    let marks = value[1..].bytes().filter(|b| *b == b'\'').count().min(4) as i8
        - value[1..].bytes().filter(|b| *b == b',').count().min(4) as i8;
    let octave = if letter.is_ascii_uppercase() { 4 } else { 5 } + marks;
    let usual = if matches!(letter.to_ascii_uppercase(), b'A' | b'F' | b'D') { 3 } else { 4 };
    found.octave = Some(found.octave.unwrap_or(0) + usual - octave);
    found.clef = Some(Clef { sign, line, octave: 0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_accidentals() {
        let of = |field: &str| key(field).map(|key| (key.fifths, key.mode, key.alters));
        assert_eq!(of("C"), Some((0, "major", [0; 7])));
        assert_eq!(of("Gmin"), Some((-2, "minor", [0, 0, -1, 0, 0, 0, -1])));
        assert_eq!(of("F# minor"), Some((3, "minor", [1, 0, 0, 1, 1, 0, 0])));
        assert_eq!(of("Ddor bass"), Some((0, "dorian", [0; 7])));
        assert_eq!(of("Bb treble"), Some((-2, "major", [0, 0, -1, 0, 0, 0, -1])));
        assert_eq!(of("D =c ^g"), Some((2, "major", [0, 0, 0, 1, 1, 0, 0])));
        assert_eq!((of("bass"), of(""), of("treble-8")), (None, None, None));
        assert_eq!(of("none"), Some((0, "major", [0; 7])));
        let good =
            ["", "C", "F#", "Gm", "Bb treble", "F# minor", "Ddor^c", "Amixolydian", "none", "alto", "clef=bass", "^f"];
        assert!(good.iter().all(|field| is_key(field)));
        assert!(["H", "Dwhat", "c", "F\u{266f}"].iter().all(|field| !is_key(field)));
    }

    #[test]
    fn meters_units_and_tempos() {
        assert_eq!(meter("6/8").unwrap().unwrap().length, WHOLE * 3 / 4);
        assert_eq!(meter("(2+3)/8").unwrap().unwrap().length, WHOLE * 5 / 8);
        assert_eq!(meter("C|").unwrap().unwrap().beats, "2");
        assert_eq!(meter("none"), Ok(None));
        assert!(meter("4").is_err() && meter("0/4").is_err() && meter("4/0").is_err() && meter("x/4").is_err());
        assert_eq!((unit("1/8"), unit("1/7"), unit("8")), (Some((1, 8)), None, None));
        let quarters = |field: &str| tempo(field, (1, 8)).map(|tempo| tempo.quarters);
        assert_eq!(quarters("1/4=120"), Some(120.0));
        assert_eq!(quarters("\"Allegro 2\" 3/8=80"), Some(120.0));
        assert_eq!(quarters("\"Largo\""), Some(56.0));
        assert_eq!(quarters("120"), Some(60.0));
        assert_eq!((quarters(""), quarters("1/0=9"), quarters("x")), (None, None, None));
    }

    #[test]
    fn voices() {
        let found = attributes("treble-8 transpose=-12 nm=\"\\n\t\t:Violin I\" snm=\"Vln. I\" stafflines=1");
        assert_eq!(found.name.as_deref(), Some("Violin I"));
        assert_eq!(found.short_name.as_deref(), Some("Vln. I"));
        assert_eq!((found.octave, found.transpose, found.staff_lines), (Some(-1), Some(-12), Some(1)));
        assert_eq!(found.clef, Some(Clef { sign: "G", line: 2, octave: -1 }));
        assert_eq!(attributes("bass map=perc").percussion, Some(true));
        assert_eq!(attributes("clef=alto").clef.unwrap().line, 3);
        assert_eq!(attributes("nm=\"Solo bass").name.as_deref(), Some("Solo bass"));
    }
}
