//! The fifteen key signatures, and the keys and modes that are written with them.

use crate::{Error, Result};

/// One of the fifteen signatures, by its major key: seven flats (`Cb`) to seven sharps (`C#`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(i8);

const LETTERS: [char; 7] = ['F', 'C', 'G', 'D', 'A', 'E', 'B'];
const NAMES: [&str; 15] = ["Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#"];

impl Key {
    /// All fifteen, in the original's order (`Key2index`).
    pub const ALL: [Key; 15] = [
        Key(-7),
        Key(0),
        Key(7),
        Key(-5),
        Key(2),
        Key(-3),
        Key(4),
        Key(-1),
        Key(6),
        Key(-6),
        Key(1),
        Key(-4),
        Key(3),
        Key(-2),
        Key(5),
    ];

    /// The name of the major key, such as `Bb`. Folders and files are named after it.
    pub fn name(self) -> &'static str {
        NAMES[(self.0 + 7) as usize]
    }

    /// The signature of this name.
    pub fn from_name(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The number of sharps; flats are negative.
    pub fn sharps(self) -> i8 {
        self.0
    }

    /// The semitones of the major key's tonic above C, 0 to 11.
    pub fn pitch_class(self) -> u8 {
        (i16::from(self.0) * 7).rem_euclid(12) as u8
    }

    /// The signature of a key as it is written after `K:` and in index files (`Gmin`, `F#m`, `Ddor`). Keys with more than
    /// seven flats or sharps get the signature of the enharmonic key.
    ///
    /// # Errors
    /// [`Error::UnknownKey`], unless the key is a tonic followed by nothing, `dor`, `phr`, `lyd`, `mix`, `min`, `m` or `loc`.
    ///
    /// ```
    /// let key = notation::Key::of_mode("F#min")?;
    /// assert_eq!((key.name(), key.sharps()), ("A", 3));
    /// # Ok::<(), notation::Error>(())
    /// ```
    pub fn of_mode(mode: &str) -> Result<Key> {
        let unknown = || Error::UnknownKey { key: mode.to_owned() };
        let (tonic, name) = split(mode);
        let tonic = fifths(tonic).ok_or_else(unknown)?;
        let shift = match name {
            "" => 0,
            "dor" => -2,
            "phr" => -4,
            "lyd" => 1,
            "mix" => -1,
            "min" | "m" => -3,
            "loc" => -5,
            _ => return Err(unknown()),
        };
        let found = Key::at(tonic + shift);
        let twins = [tonic - 12, tonic + 12].into_iter().filter(|tonic| (-8..=12).contains(tonic));
        found.or_else(|| twins.filter_map(|tonic| Key::at(tonic + shift)).next()).ok_or_else(unknown)
    }

    fn at(sharps: i8) -> Option<Key> {
        (-7..=7).contains(&sharps).then_some(Key(sharps))
    }

    /// The sharps (-1 to 1) of a letter in this key. The letter is an index in C D E F G A B.
    pub(crate) fn sharp(self, letter: i64) -> i64 {
        let place = [0, 2, 4, -1, 1, 3, 5][letter.rem_euclid(7) as usize];
        i64::from(self.0 >= place + 2) - i64::from(self.0 <= place - 6)
    }

    /// The letter of the name, as an index in C D E F G A B.
    pub(crate) fn letter(self) -> i8 {
        (self.0 * 4).rem_euclid(7)
    }
}

/// The position of a letter on the line of fifths; C is 0.
fn letter_fifths(letter: char) -> i8 {
    LETTERS.iter().position(|l| *l == letter).map_or(0, |place| place as i8 - 1)
}

/// Splits a key into tonic and mode: `F#min` into `F#` and `min`.
fn split(mode: &str) -> (&str, &str) {
    let first = mode.chars().next().map_or(0, char::len_utf8);
    let tonic = if mode[first..].starts_with(['#', 'b']) { first + 1 } else { first };
    mode.split_at(tonic)
}

/// The position of a tonic on the line of fifths, `Fb` (−8) to `B#` (12).
fn fifths(tonic: &str) -> Option<i8> {
    let letter = tonic.chars().next().filter(|letter| LETTERS.contains(letter))?;
    let place = letter_fifths(letter)
        + match &tonic[1..] {
            "" => 0,
            "#" => 7,
            "b" => -7,
            _ => return None,
        };
    (-8..=12).contains(&place).then_some(place)
}

/// Transposes a key by the interval from `from` to `to`: the new name with its mode, and the signature. A tonic with more
/// than seven flats or sharps becomes the enharmonic one; so `G#min` becomes `Abmin` even if `from` is `to`.
///
/// # Errors
/// [`Error::UnknownKey`].
pub(crate) fn moved(mode: &str, from: Key, to: Key) -> Result<(String, Key)> {
    let (tonic, name) = split(mode);
    let place = fifths(tonic).ok_or_else(|| Error::UnknownKey { key: mode.to_owned() })?;
    let mut place = place - from.0 + to.0;
    while place < -7 {
        place += 12;
    }
    while place > 7 {
        place -= 12;
    }
    let moved = format!("{}{name}", Key(place).name());
    let key = Key::of_mode(&moved)?;
    Ok((moved, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_share_signatures() {
        for (mode, name) in [
            ("C", "C"),
            ("Gmin", "Bb"),
            ("F#m", "A"),
            ("Floc", "Gb"),
            ("B#loc", "C#"),
            ("Dbmin", "E"),
            ("D#", "Eb"),
            ("B#min", "Eb"),
        ] {
            assert_eq!(Key::of_mode(mode).unwrap().name(), name, "{mode}");
        }
        for mode in ["", "H", "Cmaj", "none", "C clef=bass", "Cphrygian", "é"] {
            assert!(Key::of_mode(mode).is_err(), "{mode}");
        }
    }

    #[test]
    fn names_and_pitch_classes() {
        let expected = [11, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11];
        assert_eq!(Key::ALL.map(Key::pitch_class), expected);
        assert!(Key::ALL.into_iter().all(|key| Key::from_name(key.name()) == Some(key)));
    }

    #[test]
    fn accidentals_of_signatures() {
        let signs = |name: &str| {
            let key = Key::from_name(name).unwrap();
            (0..7).map(|letter| ["_", "=", "^"][(key.sharp(letter) + 1) as usize]).collect::<String>()
        };
        assert_eq!(signs("C"), "=======");
        assert_eq!(signs("A"), "^==^^==");
        assert_eq!(signs("Eb"), "==_==__");
        assert_eq!((signs("Cb"), signs("C#")), ("_______".into(), "^^^^^^^".into()));
    }

    #[test]
    fn far_keys_fold_to_their_twins() {
        let b = Key::from_name("B").unwrap();
        assert_eq!(moved("G#min", b, b).unwrap(), ("Abmin".into(), Key::from_name("Cb").unwrap()));
        assert_eq!(moved("F#min", b, Key::from_name("C").unwrap()).unwrap().0, "Gmin".to_string());
    }
}
