//! General MIDI programs for the names of instruments.

/// Words in names of instruments, and their programs (from 0). The first match counts: `bass clarinet` comes before
/// `clarinet`, and that before `bass`.
const WORDS: [(&str, u8); 118] = [
    ("english horn", 69),
    ("cor anglais", 69),
    ("corno inglese", 69),
    ("englischhorn", 69),
    ("french horn", 60),
    ("bass clarinet", 71),
    ("bassklarinette", 71),
    ("clarone", 71),
    ("clarinet", 71),
    ("klarinet", 71),
    ("contrabassoon", 70),
    ("controfagott", 70),
    ("bassoon", 70),
    ("fagott", 70),
    ("basson", 70),
    ("oboe d'amore", 68),
    ("oboe da caccia", 69),
    ("oboe", 68),
    ("hautbois", 68),
    ("piccolo", 72),
    ("recorder", 74),
    ("blockfl", 74),
    ("flauto dolce", 74),
    ("pan flute", 75),
    ("ocarina", 79),
    ("flute", 73),
    ("flauto", 73),
    ("flauti", 73),
    ("flöte", 73),
    ("flûte", 73),
    ("traverso", 73),
    ("soprano sax", 64),
    ("alto sax", 65),
    ("tenor sax", 66),
    ("baritone sax", 67),
    ("sax", 65),
    ("bass trombone", 57),
    ("trombon", 57),
    ("posaune", 57),
    ("trumpet", 56),
    ("trompet", 56),
    ("tromba", 56),
    ("trombe", 56),
    ("clarino", 56),
    ("cornet", 56),
    ("flugelhorn", 56),
    ("tuba", 58),
    ("ophicleide", 58),
    ("euphonium", 58),
    ("horn", 60),
    ("corni", 60),
    ("corno", 60),
    ("cor ", 60),
    ("timpan", 47),
    ("pauken", 47),
    ("kettle", 47),
    ("glockenspiel", 9),
    ("vibraphon", 11),
    ("marimba", 12),
    ("xylo", 13),
    ("tubular", 14),
    ("chimes", 14),
    ("bells", 14),
    ("celest", 8),
    ("harpsichord", 6),
    ("cembalo", 6),
    ("clavecin", 6),
    ("clavicembalo", 6),
    ("spinet", 6),
    ("continuo", 6),
    ("clavichord", 7),
    ("harmonium", 20),
    ("accordion", 21),
    ("harmonica", 22),
    ("organ", 19),
    ("orgel", 19),
    ("orgue", 19),
    ("electric piano", 4),
    ("pianoforte", 0),
    ("fortepiano", 0),
    ("piano", 0),
    ("klavier", 0),
    ("clavier", 0),
    ("keyboard", 0),
    ("contrabass", 43),
    ("kontrabass", 43),
    ("double bass", 43),
    ("doublebass", 43),
    ("string bass", 43),
    ("contrabbass", 43),
    ("violone", 43),
    ("electric bass", 33),
    ("bass guitar", 33),
    ("violoncell", 42),
    ("cello", 42),
    ("gamba", 42),
    ("viola da", 42),
    ("violin", 40),
    ("violon", 40),
    ("violino", 40),
    ("viola", 41),
    ("viole", 41),
    ("bratsche", 41),
    ("strings", 48),
    ("streicher", 48),
    ("archi", 48),
    ("harp", 46),
    ("arpa", 46),
    ("electric guitar", 27),
    ("guitar", 24),
    ("gitarre", 24),
    ("chitarra", 24),
    ("theorbo", 24),
    ("lute", 24),
    ("liuto", 24),
    ("banjo", 105),
    ("sitar", 104),
    ("mandolin", 25),
];

/// Whole words in names, most of them abbreviations.
#[rustfmt::skip]
const SHORT: [(&str, u8); 57] = [
    ("fl", 73), ("picc", 72), ("ob", 68), ("cl", 71), ("kl", 71), ("bn", 70), ("bsn", 70), ("fg", 70),
    ("fag", 70), ("hn", 60), ("cor", 60), ("tpt", 56), ("tr", 56), ("trp", 56), ("tbn", 57), ("trb", 57),
    ("tba", 58), ("timp", 47), ("hp", 46), ("hpschd", 6), ("pno", 0), ("pf", 0), ("org", 19), ("vln", 40),
    ("vn", 40), ("vl", 40), ("vni", 40), ("viol", 40), ("vla", 41), ("va", 41), ("vlc", 42), ("vc", 42),
    ("vcl", 42), ("cb", 43), ("db", 43), ("gtr", 24), ("soprano", 52), ("soprani", 52), ("sopran", 52),
    ("mezzo", 52), ("alto", 52), ("alt", 52), ("contralto", 52), ("contratenor", 52), ("countertenor", 52),
    ("tenor", 52), ("tenore", 52), ("baritone", 52), ("bariton", 52), ("bass", 52), ("basso", 52),
    ("voice", 52), ("canto", 52), ("cantus", 52), ("quinto", 52), ("choir", 52), ("coro", 52),
];

/// What an instrument sounds like: a program, or the percussion channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sound {
    Program(u8),
    Drums,
}

/// The sound for an instrument's name; `None` if the name is unknown.
pub(crate) fn sound(name: &str) -> Option<Sound> {
    let name = name.to_lowercase();
    if ["drum", "percussion", "schlagzeug", "batterie", "cymbal", "triangle", "tambour", "cowbell"]
        .iter()
        .any(|word| name.contains(word))
    {
        return Some(Sound::Drums);
    }
    if let Some((_, program)) = WORDS.iter().find(|(word, _)| name.contains(word)) {
        return Some(Sound::Program(*program));
    }
    let mut words = name.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    words.find_map(|word| SHORT.iter().find(|(short, _)| *short == word)).map(|(_, program)| Sound::Program(*program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_programs() {
        let names = [
            ("Violin II", 40),
            ("1st Violin", 40),
            ("Viola", 41),
            ("Violoncello", 42),
            ("Viola da gamba", 42),
            ("Double Bass", 43),
            ("Bass Clarinet in Bb", 71),
            ("Contrabassoon", 70),
            ("Corno Inglese", 69),
            ("Corni in F", 60),
            ("Tromba 1", 56),
            ("Trombone", 57),
            ("Vln. I", 40),
            ("Vc.", 42),
            ("Pno.", 0),
            ("Tenor", 52),
            ("Basso", 52),
            ("Harpsichord", 6),
            ("Harp", 46),
            ("Flute", 73),
            ("Flöte", 73),
            ("Timpani", 47),
        ];
        for (name, program) in names {
            assert_eq!(sound(name), Some(Sound::Program(program)), "{name}");
        }
        assert_eq!(sound("Drumset"), Some(Sound::Drums));
        assert_eq!((sound(""), sound("MusicXML AbcPart")), (None, None));
    }
}
