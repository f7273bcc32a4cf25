//! `features` from the command line: what it skips, shares out, cannot read, and goes on with after a kill.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use common::{Ran, Workplace, root};
use serde_json::Value;

fn weights(name: &str) -> String {
    root().join("model/tests/golden").join(name).display().to_string()
}

fn piece(number: usize, bars: usize) -> String {
    let bar = |at: usize| format!("[V:1]{}8|\n", ["C", "D", "E", "F", "G"][(number + at * at) % 5]);
    "X:1\nL:1/8\nK:C\nV:1\n".to_owned() + &(0..bars).map(bar).collect::<String>()
}

fn features(place: &Workplace, output: &str, more: &[&str]) -> Ran {
    let weights = weights("m3.pth");
    let arguments = ["features", "--weights", &weights, "--input", "pieces", "--output", output, "--json"];
    place.run(&[&arguments, more].concat())
}

/// Names, and the numbers behind the header.
fn read(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let found = model::features::read_folder(folder).unwrap();
    assert_eq!(found.damaged.len(), 0, "{:?}", found.damaged);
    found.features.into_iter().collect()
}

fn alike(one: &BTreeMap<String, Vec<f32>>, other: &BTreeMap<String, Vec<f32>>) {
    assert!(one.keys().eq(other.keys()), "{:?}, {:?}", one.keys(), other.keys());
    for (name, feature) in one {
        let off = feature.iter().zip(&other[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{name} is {off} off");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_what_is_done_is_kept() {
    let place = Workplace::empty();
    for number in 0..6 {
        place.write(&format!("pieces/{number}.abc"), &piece(number, 3 + 5 * number));
    }
    place.write("pieces/sub/midi.mtf", "ticks_per_beat 480\nnote_on 0 64 0 1\nnote_on 3 60 0 1\nend_of_track 1 0\n");
    place.write("pieces/empty.abc", "");
    fs::write(place.path("pieces/latin.abc"), b"X:1\nT:\xe9\nK:C\nC|\n").unwrap();
    place.write("pieces/notes.txt", "no piece");

    let first = features(&place, "out", &[]);
    assert_eq!(first.code(), 0, "{}", first.stderr());
    let counts = |ran: &Ran| ["pieces", "failed", "unchanged"].map(|key| ran.objects()[0][key].as_u64().unwrap());
    assert_eq!(counts(&first), [7, 2, 0]);
    let failed: Vec<Value> =
        place.read("out_failed.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<[&str; 2]> =
        failed.iter().map(|line| ["path", "reason"].map(|key| line[key].as_str().unwrap())).collect();
    assert_eq!((told[0], told[1][0]), (["pieces/empty.abc", "there is no text"], "pieces/latin.abc"));
    assert!(told[1][1].contains("line 2: not UTF-8"), "{told:?}");
    assert!(first.stderr().contains("pieces/latin.abc: "), "{}", first.stderr());
    let all = read(&place.path("out"));
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(names, ["0", "1", "2", "3", "4", "5", "sub/midi"]);
    assert!(all.values().all(|feature| feature.len() == 128));

    // What cannot be read is tried again, the rest is not, until it changes.
    assert_eq!(counts(&features(&place, "out", &[])), [7, 2, 7]);
    place.write("pieces/2.abc", &piece(9, 4));
    place.write("pieces/empty.abc", &piece(8, 4));
    fs::remove_file(place.path("pieces/latin.abc")).unwrap();
    assert_eq!(counts(&features(&place, "out", &[])), [8, 0, 6]);
    assert!(!place.path("out_failed.jsonl").exists());
    let changed = read(&place.path("out"));
    assert!(changed["2"] != all["2"] && changed["3"] == all["3"]);
    // Features of other weights are made anew.
    let other = ["features", "--weights", &weights("clamp2.pth"), "--input", "pieces", "--output", "out", "--json"];
    assert_eq!(counts(&place.good(&other)), [8, 0, 0]);
    assert_eq!(read(&place.path("out"))["2"].len(), 96);

    for name in ["0", "1", "2", "3", "4", "5", "empty", "sub/midi"] {
        let ending = if name == "sub/midi" { "mtf" } else { "abc" };
        place.write(&format!("pieces/{name}.{ending}"), "");
    }
    features(&place, "none", &[]).fails(1, "no piece could be read; the first: pieces/0.abc: there is no text", "");
}

#[test]
fn shards_together_are_the_whole() {
    let place = Workplace::empty();
    for number in 0..7 {
        place.write(&format!("pieces/{number}.abc"), &piece(number, 4 + 3 * number));
    }
    place.write("pieces/empty.abc", "");
    features(&place, "whole", &[]);
    for shard in ["0/3", "1/3", "2/3"] {
        assert_eq!(features(&place, "shards", &["--shard", shard]).code(), 0);
    }
    alike(&read(&place.path("whole")), &read(&place.path("shards")));
    assert!(place.read("shards_failed-1-of-3.jsonl").contains("pieces/empty.abc"));
}

#[test]
fn killed_it_goes_on_with_what_is_missing() {
    let place = Workplace::empty();
    for number in 0..240 {
        place.write(&format!("pieces/{number:03}.abc"), &piece(number, 60 + number % 7));
    }
    let weights = weights("m3.pth");
    let arguments = ["features", "--weights", &weights, "--input", "pieces", "--output", "killed", "--json"];
    let mut run = place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let is_feature = |entry: fs::DirEntry| entry.path().extension().is_some_and(|end| end == "npy");
    let some = || fs::read_dir(place.path("killed")).is_ok_and(|entries| entries.flatten().any(is_feature));
    while !some() && run.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is written");
        thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let again = features(&place, "killed", &[]);
    let unchanged = again.objects()[0]["unchanged"].as_u64().unwrap();
    assert!(unchanged > 0 && again.objects()[0]["pieces"] == 240, "{unchanged} were there");
    features(&place, "whole", &[]);
    alike(&read(&place.path("whole")), &read(&place.path("killed")));
}
