//! MusicXML to ABC: the original's text, precise errors, no panic, linear time.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod support;

use std::fs;
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use notation::musicxml::{MusicXmlOptions, to_abc};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zip::write::SimpleFileOptions;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/musicxml")
}

/// The scores of `golden/make_musicxml.py`, by name.
fn scores() -> Vec<(String, String)> {
    let mut scores: Vec<(String, String)> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "xml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    scores.sort();
    scores
}

fn score(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.xml"))).unwrap()
}

fn abc(bytes: &[u8]) -> String {
    to_abc(bytes, "score", &MusicXmlOptions::default()).unwrap().abc
}

/// A score of one part around measures.
fn one_part(measures: &str) -> String {
    format!(
        "<score-partwise><part-list><score-part id=\"P1\"><part-name>One</part-name></score-part></part-list>\
         <part id=\"P1\">{measures}</part></score-partwise>"
    )
}

const NOTE: &str = "<note><pitch><step>C</step><octave>4</octave></pitch><duration>4</duration></note>";
const DIVISIONS: &str = "<attributes><divisions>1</divisions></attributes>";

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn texts_are_the_originals() {
    let mut compared = 0;
    for (name, text) in scores() {
        if let Ok(expected) = fs::read_to_string(folder().join(format!("{name}.abc"))) {
            assert_eq!(abc(text.as_bytes()), expected, "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 20);
}

#[test]
fn scores_that_the_original_fails_on_are_converted() {
    let expected = [
        ("fails_decimals", " C4 D2 E | %1", None),
        ("fails_meter", " C4 | %1", None),
        ("fails_mode", " =C4 | %1", Some("the mode \"hypolydian\" is written as major")),
        (
            "fails_accidental",
            " =C2 ^D2 ^^F2 =F2 | %1",
            Some("the accidental \"quarter-sharp\" is written as a semitone"),
        ),
        ("fails_staff", "!p! C8 | %1", None),
        ("fails_pedal", " C4!ped-up! D4 | %1", None),
        ("fails_chord", " C8 | %1", Some("a chord without a note before it")),
        ("fails_spans", " C8 | %1", Some("a pedal of type \"sostenuto\" is left out")),
        ("fails_timewise", " E8 | E8 | %2", None),
        ("fails_part_list", " C8 | %1", None),
    ];
    for (name, line, warning) in expected {
        let converted = to_abc(score(name).as_bytes(), name, &MusicXmlOptions::default()).unwrap();
        assert!(converted.abc.lines().any(|found| found == line), "{name}: {}", converted.abc);
        let first = converted.warnings.first().map(|warning| warning.text.as_str());
        assert_eq!(first, warning, "{name}");
    }
    assert!(abc(score("fails_spans").as_bytes()).contains("Q:1/4=90\n"));
    assert!(abc(score("fails_meter").as_bytes()).contains("M:3+2/8\n"));
}

#[test]
fn warnings_say_where() {
    let converted = to_abc(score("overlaps").as_bytes(), "", &MusicXmlOptions::default()).unwrap();
    let warnings: Vec<String> = converted.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings
            .iter()
            .any(|text| text.ends_with("part P1, measure 1: voice 1: notes overlap: a chord was made of them")),
        "{warnings:#?}"
    );
    assert_eq!(warnings[0].split(": ").next(), Some("line 5, column 1, part P1, measure 1"), "{warnings:#?}");
}

#[test]
fn encodings_and_containers_do_not_matter() {
    let plain = score("titles").replace("ncoded", "ncödéd");
    let expected = abc(plain.as_bytes());
    let utf16 = plain.replace("UTF-8", "UTF-16");
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        let bytes: Vec<u8> = format!("\u{feff}{utf16}").encode_utf16().flat_map(order).collect();
        assert_eq!(abc(&bytes), expected);
    }
    let latin: Vec<u8> = plain.replace("UTF-8", "ISO-8859-1").chars().map(|c| u8::try_from(c).unwrap()).collect();
    assert_eq!(abc(&latin), expected);
    assert_eq!(abc(plain.replace('\n', "\r\n").as_bytes()), expected);
    let doctype = "<!DOCTYPE score-partwise PUBLIC \"-//Recordare//DTD MusicXML 4.0 Partwise//EN\" \
                   \"http://www.musicxml.org/dtds/partwise.dtd\" [<!ENTITY ode \"ncödéd\">]>";
    let text = plain.replace("ncödéd", "&ode;").replace("<score-partwise", &format!("{doctype}<score-partwise"));
    assert_eq!(abc(text.as_bytes()), expected);

    let container = b"<container><rootfiles><rootfile full-path=\"b/score.musicxml\"/></rootfiles></container>";
    let listed = archive(&[
        ("a.xml", score("lines").as_bytes()),
        ("META-INF/container.xml", container),
        ("b/score.musicxml", plain.as_bytes()),
    ]);
    assert_eq!(abc(&listed), expected);
    // Without a table of contents the first score counts.
    assert_eq!(
        abc(&archive(&[("mimetype", b"x"), ("META-INF/x.xml", b"<x/>"), ("Score.XML", plain.as_bytes())])),
        expected
    );
}

#[test]
fn lyrics_can_be_left_out() {
    let with = abc(score("lyrics").as_bytes());
    let mut options = MusicXmlOptions::default();
    options.lyrics = false;
    let without = to_abc(score("lyrics").as_bytes(), "", &options).unwrap().abc;
    let kept: String = with.split_inclusive('\n').filter(|line| !line.starts_with("w:")).collect();
    assert!(with != kept && without == kept);
}

#[test]
fn errors_say_what_and_where() {
    let measure = |content: &str| one_part(&format!("<measure number=\"7\">\n {content}</measure>"));
    let cases = [
        ("".to_owned(), "line 1, column 1: not XML: it has no element"),
        ("hello".to_owned(), "line 1, column 1: not XML: it has no element"),
        (
            "<score-partwise>\n <part id=\"P1\">".to_owned(),
            "line 2, column 2, part P1: <part> is not closed: the file ends too early",
        ),
        ("<a>&x;</a>".to_owned(), "line 1, column 4: the entity &x; is not defined"),
        (
            "<html/>".to_owned(),
            "line 1, column 1: not a score: MusicXML begins with <score-partwise>, this with <html>",
        ),
        (one_part("<measure/>"), "line 1, column 1: the score has no notes"),
        (
            measure(&NOTE.replace("<octave>4", "<octave>four")),
            "line 2, column 29, part P1, measure 7: <octave> is \"four\", not a whole number",
        ),
        (
            measure("<note></pitch>"),
            "line 2, column 8, part P1, measure 7: not well-formed XML: </pitch> where <note> should end",
        ),
        (measure(NOTE), "line 1, column 113, part P1, measure 7: durations before any <divisions>"),
        (measure("<backup/>"), "line 2, column 2, part P1, measure 7: <backup> without <duration>"),
        (
            measure("<attributes><divisions>0</divisions></attributes>"),
            "line 2, column 14, part P1, measure 7: <divisions> is 0: it must be at least 1",
        ),
        (
            measure(&format!("{DIVISIONS}<note><rest/><duration>-1</duration></note>")),
            "line 2, column 64, part P1, measure 7: <duration> is -1, less than 0",
        ),
        (
            measure("<attributes><time><beats>4</beats><beat-type>0</beat-type></time></attributes>"),
            "line 2, column 20, part P1, measure 7: \"4\" over \"0\" is not a meter",
        ),
        (
            measure(&(DIVISIONS.to_owned() + &NOTE.replace(">C<", ">H<"))),
            "line 2, column 51, part P1, measure 7: the step \"H\" is none of A to G",
        ),
        ("<?xml version=\"1.0\" encoding=\"no-such\"?><a/>".to_owned(), "unknown encoding \"no-such\""),
    ];
    for (text, expected) in cases {
        let error = to_abc(text.as_bytes(), "", &MusicXmlOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
        let named = to_abc(text.as_bytes(), "my score.xml", &MusicXmlOptions::default()).unwrap_err();
        assert_eq!(named.to_string(), format!("my score.xml: {expected}"));
    }
    let malformed = [
        ("<a>\n<b></a>", "line 2, column 4: not well-formed XML: </a> where <b> should end"),
        ("<a/>\n</a>", "line 2, column 1: not well-formed XML: </a> where no element should end"),
        ("<a></a >\n <b/>", "line 2, column 2: not well-formed XML: more after the end of <a>"),
        ("<a>\n <b c='<'/></a>", "line 2, column 2: not well-formed XML: a tag is not closed"),
        ("<a>é <1/></a>", "line 1, column 6: not well-formed XML: < that begins no tag"),
        ("<a>x & y</a>", "line 1, column 6: & that begins no entity"),
        ("<a>&#xD800;</a>", "line 1, column 4: &#xD800; is not a character"),
        ("<!-- <a/>", "line 1, column 1: not well-formed XML: a comment is not closed"),
        ("<a><![CDATA[</a>", "line 1, column 4: not well-formed XML: a CDATA section is not closed"),
        ("<!DOCTYPE a [<!ENTITY x '>'>", "line 1, column 1: not well-formed XML: the document type is not closed"),
    ];
    for (text, expected) in malformed {
        assert_eq!(
            to_abc(text.as_bytes(), "", &MusicXmlOptions::default()).unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
    let empty = to_abc(&archive(&[("a.txt", b"")]), "", &MusicXmlOptions::default()).unwrap_err();
    assert_eq!(empty.to_string(), "an archive without a MusicXML file in it");
}

#[test]
fn damaged_scores_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let scores = scores();
    let (mut converted, mut refused) = (0, 0);
    for round in 0..6_000 {
        let (name, text) = &scores[round % scores.len()];
        let mut bytes = support::damage(text, &mut rng).into_bytes();
        match rng.random_range(0..20) {
            0 => bytes = archive(&[("x.xml", &bytes)]),
            1 => {
                bytes = archive(&[("x.xml", &bytes)]);
                let place = rng.random_range(0..bytes.len());
                bytes[place] ^= 1 << rng.random_range(0..8);
            }
            2 if !bytes.is_empty() => {
                let place = rng.random_range(0..bytes.len());
                bytes[place] = rng.random();
            }
            _ => {}
        }
        match catch_unwind(AssertUnwindSafe(|| to_abc(&bytes, "", &MusicXmlOptions::default()).is_ok())) {
            Ok(true) => converted += 1,
            Ok(false) => refused += 1,
            Err(_) => panic!("panicked on {name}, damaged:\n{}", String::from_utf8_lossy(&bytes)),
        }
    }
    assert!(converted > 1_000 && refused > 1_000, "{converted} converted, {refused} refused: a poor test");
}

#[test]
fn large_scores_take_no_more_than_their_share_of_time() {
    let many = 20_000;
    let measure = |content: String| one_part(&format!("<measure>{DIVISIONS}{NOTE}{content}</measure>"));
    let direction = |content: &str| format!("<direction><direction-type>{content}</direction-type></direction>");
    let notations = |content: String| NOTE.replace("</note>", &format!("<notations>{content}</notations></note>"));
    let measures = |content: &str| one_part(&format!("<measure>{DIVISIONS}{NOTE}</measure>{}", content.repeat(many)));
    let scores = [
        ("one line a bar", measures(&format!("<measure>{NOTE}</measure>"))),
        ("a long bar", measure(NOTE.repeat(many))),
        ("directions", measure(direction("<words>x</words>").repeat(many))),
        ("words", measure(direction(&"<words> x </words>".repeat(many)))),
        ("direction types", measure(direction(&"</direction-type><direction-type><words> x</words>".repeat(many)))),
        ("a large chord", measure(NOTE.replace("<note>", "<note><chord/>").repeat(many))),
        (
            "fingerings",
            measure(
                (0..many)
                    .map(|i| notations(format!("<technical><fingering>{i}</fingering></technical>")).replace("<note>", "<note><chord/>"))
                    .collect(),
            ),
        ),
        ("slurs", measure(notations((0..many).map(|i| format!("<slur type='start' number='{i}'/>")).collect()) + &notations((0..many).map(|i| format!("<slur type='stop' number='{i}'/>")).collect()))),
        (
            "tuplets",
            measure(
                NOTE.replace(
                    "</note>",
                    "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>\
                     <notations><tuplet type='start'/></notations></note>",
                )
                .repeat(many),
            ),
        ),
        ("tuplets of one note", measure(notations("<tuplet type='start'/>".repeat(many)).replace("</note>", "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification></note>"))),
        ("overlaps", measure(format!("{NOTE}<backup><duration>3</duration></backup>").repeat(many))),
        ("octave shifts", measure((direction("<octave-shift type='down'/>") + &direction("<octave-shift type='stop'/>")).repeat(many))),
        ("nested shifts", measure(direction("<octave-shift type='down'/>").repeat(many) + &direction("<octave-shift type='up'/>").repeat(many))),
        ("measure repeats", measure("<attributes><measure-style><measure-repeat type='start'/></measure-style></attributes>".repeat(many))),
        ("verses", measure(NOTE.replace("</note>", "<lyric number='64'><text>x</text></lyric></note>").repeat(many / 10))),
        ("verses of a note", measure(NOTE.replace("</note>", &format!("{}</note>", "<lyric><text>x</text></lyric>".repeat(many))))),
        ("altered notes", measure(NOTE.replace("</step>", "</step><alter>1</alter>").repeat(many))),
        ("a note without a place", measures("<measure><forward><duration>1</duration></forward></measure>")),
        ("empty parts", format!("<score-partwise><part-list/><part>{DIVISIONS}</part>{}</score-partwise>", "<part><measure/></part>".repeat(many))),
        ("parts", format!("<score-partwise><part-list>{}</part-list>{}</score-partwise>", "<score-part/>".repeat(many), format!("<part><measure>{DIVISIONS}{NOTE}</measure></part>").repeat(many))),
        ("part groups", format!("<score-partwise><part-list>{}</part-list></score-partwise>", "<part-group type='start' number='1'/>".repeat(many))),
        ("nested groups", format!("<score-partwise><part-list>{}</part-list></score-partwise>", (0..many).map(|i| format!("<part-group type='start' number='{i}'/>")).collect::<String>())),
        ("deep elements", format!("<score-partwise>{}{}</score-partwise>", "<a>".repeat(many), "</a>".repeat(many))),
        ("pieces of text", format!("<score-partwise><movement-title>{}</movement-title></score-partwise>", "&amp;<![CDATA[x]]>".repeat(many))),
        ("attributes", format!("<score-partwise><part {}/></score-partwise>", "a='b' ".repeat(many))),
        ("quotes", format!("<score-partwise><part {}/></score-partwise>", "a=".repeat(many))),
        ("entities", format!("<!DOCTYPE a [{}]><score-partwise>{}</score-partwise>", "<!ENTITY x 'y'>".repeat(many), "&x;".repeat(many))),
        ("line ends", format!("<score-partwise>{}</score-partwise>", "\r\n\r".repeat(many))),
        ("credits", format!("<score-partwise><credit><credit-words>{}</credit-words></credit></score-partwise>", " \n x".repeat(many))),
        ("voices", measure((0..many).map(|i| NOTE.replace("</note>", &format!("<voice>{i}</voice></note>"))).collect())),
        ("voices and bars", one_part(&(0..200).map(|i| format!("<measure>{DIVISIONS}{}</measure>", NOTE.replace("</note>", &format!("<voice>{i}</voice></note>")))).collect::<String>())),
        (
            "voices of empty bars",
            one_part(&format!(
                "<measure>{DIVISIONS}{}</measure>{}",
                (0..200).map(|i| NOTE.replace("</note>", &format!("<voice>{i}</voice></note>"))).collect::<String>(),
                "<measure/>".repeat(many)
            )),
        ),
        (
            "groups one after the other",
            format!(
                "<score-partwise><part-list>{}</part-list></score-partwise>",
                (0..many)
                    .map(|i| format!("<part-group type='start' number='{i}'/><part-group type='stop' number='{i}'/>"))
                    .collect::<String>()
            ),
        ),
        ("a great octave", measure(NOTE.replace("<octave>4", "<octave>1000000000"))),
        ("a great length", measure(NOTE.replace("<duration>4", "<duration>2000000000").repeat(many))),
        ("a great verse", measure(NOTE.replace("</note>", "<lyric number='2000000000'><text>x</text></lyric></note>"))),
        ("a great tremolo", measure(notations("<ornaments><tremolo type='single'>1000000000</tremolo></ornaments>".to_owned()))),
    ];
    for (name, text) in scores {
        let started = Instant::now();
        let _ = to_abc(text.as_bytes(), name, &MusicXmlOptions::default());
        assert!(started.elapsed().as_secs() < 4, "{name}: {:?}", started.elapsed());
    }
}
