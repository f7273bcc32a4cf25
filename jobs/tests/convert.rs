//! `convert` and `check`: one bad file ends nothing, what is done is not done twice, and both say what is wrong.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::Workplace;

const PIECE: &str =
    "X:1\nL:1/8\nM:4/4\nK:G\nV:1 treble nm=\"Flute\"\nV:2 bass nm=\"Cello\"\nV:1\nGABc d4|]\nV:2\nG,4 D,4|]\n";

#[test]
fn scores_are_converted_and_a_bad_one_is_named() {
    let place = Workplace::empty();
    place.write("scores/good.abc", PIECE);
    place.write("scores/more/short.abc", &PIECE.replace("G,4 D,4", "G,4"));
    place.write("scores/bad.abc", "A cabbage");
    let ran = place.run(&["convert", "--to", "midi", "--output", "midi", "scores", "--json"]);
    ran.fails(1, "1 of 3 files could not be converted", "");
    let line = |name: &str| {
        let found =
            ran.objects().into_iter().find(|line| line["path"].as_str().is_some_and(|path| path.ends_with(name)));
        found.unwrap_or_else(|| panic!("no line for {name}"))
    };
    assert_eq!(line("good.abc")["status"], "converted");
    assert_eq!(line("bad.abc")["status"], "failed");
    let warning = line("short.abc")["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("voice V:2, bar 1: 1/2 long, not 1/1"), "{warning}");
    assert!(place.path("midi/good.mid").is_file() && place.path("midi/more_short.mid").is_file());

    let again = place.run(&["convert", "--to", "midi", "--output", "midi", "scores", "--json"]);
    let statuses: Vec<_> =
        again.objects().into_iter().filter_map(|line| line["status"].as_str().map(str::to_owned)).collect();
    assert_eq!(statuses.iter().filter(|status| *status == "up_to_date").count(), 2);
    assert_eq!(again.code(), 1);
}

#[test]
fn there_and_back() {
    let place = Workplace::empty();
    place.write("piece.abc", PIECE);
    place.good(&["convert", "--to", "musicxml", "--output", "xml", "piece.abc"]);
    place.good(&["convert", "--to", "abc", "--output", "abc", "xml"]);
    let back = place.read("abc/piece.abc");
    assert!(back.contains("GABc d4") && back.contains("G,4 D,4"), "{back}");
    place.run(&["convert", "--to", "abc", "--output", "abc", "piece.abc"]).fails(2, "not a score to convert", "");
}

#[test]
fn pieces_are_checked() {
    let place = Workplace::empty();
    place.write("pieces/good.abc", PIECE);
    place.write("pieces/long.abc", &PIECE.replace("G,4 D,4", "G,4 D,8"));
    let apart = PIECE.replace("V:2 bass nm=\"Cello\"", "V:2 bass nm=\"Cello\"\nV:3 treble nm=\"Flute\"");
    place.write("pieces/apart.abc", &format!("{apart}V:3\nz8|]\n"));
    let ran = place.good(&["check", "pieces", "--json"]);
    let flags: Vec<_> = ran
        .objects()
        .iter()
        .map(|line| {
            [&line["bar_lines"], &line["bar_numbers"], &line["durations"], &line["grouped"]].map(|flag| flag == true)
        })
        .collect();
    assert_eq!(flags, [[true, true, true, false], [true; 4], [true, true, false, true]]);

    place.write("wrong/bars.abc", &PIECE.replace("d4|]", "d4|A8|]"));
    place.write("wrong/line.abc", "L:1/8\nK:G\nV:1 treble\nV:2 bass\n[V:1]G8|[V:2]G,8|\n[V:1]A8|\n");
    place.write("wrong/more.abc", "L:1/8\nK:G\nV:1 treble\nV:2 bass\n[V:1]G8|A8|[V:2]G,8|\n[V:1]A8|[V:2]A,8|\n");
    let ran = place.good(&["check", "wrong", "--json"]);
    let errors: Vec<_> =
        ran.objects().iter().map(|line| line["error"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(
        errors,
        [
            "line 10: voice V:2 has 1 bars, V:1 has 2",
            "line 6: no bar for voice V:2",
            "line 5: voice V:2 has 2 bars, V:1 has 3",
        ]
    );
}
