//! Scores damaged at random, for tests and for `examples/fuzz_musicxml.rs`.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What is put in the place of texts and attributes.
const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "2",
    "3",
    "5",
    "7",
    "-1",
    "-3",
    "16",
    "480",
    "0.5",
    "1e9",
    "99999999999999999999",
    "4294967296",
    "x",
    "start",
    "stop",
    "continue",
    "single",
    "yes",
    "no",
    "none",
    "3+2",
    "verse2",
    " 4\n",
    "é",
    "&amp;",
    "&#x1F3B5;",
    "&bad;",
    "TAB",
    "percussion",
    "C",
    "G",
    "F",
    "backward",
    "forward",
    "crescendo",
    "down",
    "light-light",
    "1,2",
    "\"|:",
    "-",
    "_",
];
const ELEMENTS: &[&str] = &[
    "<chord/>",
    "<grace/>",
    "<rest/>",
    "<backup><duration>3</duration></backup>",
    "<forward><duration>2</duration></forward>",
    "<note><rest/><duration>1</duration></note>",
    "<voice>2</voice>",
    "<staff>2</staff>",
    "<notations><slur type='start'/></notations>",
    "<notations><tuplet type='start'/><tuplet type='start' number='2'/></notations>",
    "<notations><tied type='stop'/></notations>",
    "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>",
    "<unpitched><display-step>E</display-step><display-octave>4</display-octave></unpitched>",
    "<accidental>flat</accidental>",
    "<direction><direction-type><octave-shift type='stop'/></direction-type></direction>",
    "<part-group type='start' number='1'/>",
    "<direction><direction-type><wedge type='stop'/></direction-type></direction>",
    "<part-group type='stop'/>",
    "<barline><ending type='start' number='1'/><repeat direction='forward'/></barline>",
    "<lyric><text>la</text><extend/></lyric>",
    "<attributes><divisions>3</divisions></attributes>",
    "<attributes><clef number='2'><sign>F</sign><line>4</line></clef></attributes>",
    "<attributes><measure-style><measure-repeat type='start'/></measure-style></attributes>",
    "<![CDATA[<x>]]>",
    "<!-- -->",
    "<?x y?>",
];

/// The text with a few of its elements, texts and attributes changed, lost, doubled or moved, and now and then
/// with its characters damaged.
pub fn damage(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut text = text.to_owned();
    for _ in 0..rng.random_range(1..8) {
        let kind = rng.random_range(0..12);
        let tags: Vec<usize> = text.match_indices('<').map(|(place, _)| place).collect();
        if tags.is_empty() {
            return text;
        }
        let pick = |rng: &mut ChaCha8Rng| tags[rng.random_range(0..tags.len())];
        let place = pick(rng);
        match kind {
            0..4 => {
                // A text, from the end of a tag to the next one.
                if let Some((from, to)) = text[place..].find('>').and_then(|end| {
                    let from = place + end + 1;
                    Some((from, from + text[from..].find('<')?))
                }) {
                    text.replace_range(from..to, VALUES[rng.random_range(0..VALUES.len())]);
                }
            }
            4 => {
                // An attribute.
                if let Some((from, to)) = text[place..].find('"').and_then(|quote| {
                    let from = place + quote + 1;
                    Some((from, from + text[from..].find('"')?))
                }) {
                    text.replace_range(from..to, VALUES[rng.random_range(0..VALUES.len())]);
                }
            }
            5 => text.insert_str(place, ELEMENTS[rng.random_range(0..ELEMENTS.len())]),
            6..9 => {
                // An element: gone, twice, or elsewhere.
                let name: String = text[place + 1..].chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
                let close = format!("</{name}>");
                let Some(end) = text[place..].find(&close).map(|end| place + end + close.len()) else { continue };
                if name.is_empty() || end - place > 5000 {
                    continue;
                }
                let element = text[place..end].to_owned();
                match kind {
                    6 => text.replace_range(place..end, ""),
                    7 => text.insert_str(end, &element),
                    _ => {
                        let other = pick(rng);
                        if !(place..end).contains(&other) {
                            text.insert_str(other, &element);
                        }
                    }
                }
            }
            9 if rng.random_range(0..4) == 0 => {
                let from = (0..=place).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                text.truncate(from);
            }
            10 if rng.random_range(0..4) == 0 => {
                text.insert(place, ['<', '>', '&', '"', '\0', ']', '漢'][rng.random_range(0..7)])
            }
            _ => {
                // Two elements trade their names.
                let other = pick(rng);
                let name = |at: usize| text[at + 1..].chars().take_while(|c| c.is_alphanumeric() || *c == '-').count();
                let (a, b) = (place.min(other), place.max(other));
                let (length_a, length_b) = (name(a), name(b));
                if a + 1 + length_a <= b && rng.random_range(0..4) == 0 {
                    let (first, second) =
                        (text[a + 1..a + 1 + length_a].to_owned(), text[b + 1..b + 1 + length_b].to_owned());
                    text.replace_range(b + 1..b + 1 + length_b, &first);
                    text.replace_range(a + 1..a + 1 + length_a, &second);
                }
            }
        }
    }
    text
}
