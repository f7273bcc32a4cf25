//! The choice of a corpus's best pieces: its scores are those of the other commands, and nothing that happens on the way
//! changes it.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{collections::HashMap, fs};

use common::{Ran, Workplace};
use serde_json::Value;

const RECIPE: &str = "\
name: s
device: cpu
precision: fp32
model: {patch_length: 48, patch_layers: 1, char_layers: 1, hidden_size: 64, dropout: 0}
stages:
  - preprocess: {scores: scores, interleaved: data/interleaved, augmented: data/augmented, eval_split: 0}
  - pretrain: {train: data/augmented_train.jsonl, key_augmentation: none, learning_rate: 2.0e-3, batch_size: 2, steps: 12}
  - m3: {train: data/interleaved, patch_length: 40, patch_layers: 1, token_layers: 1, hidden_size: 64, batch_size: 4, steps: 2,
      warmup_steps: 1, eval_split: 0.25}
  - features: {weights: 'stage:m3', input: data/interleaved, pieces: 'haydn_*', output: data/reference}
  - select: {corpus: data/augmented.jsonl, clamp2: 'stage:m3', reference: data/reference, portion: 0.5, output: data/new.jsonl}
  - post_train: {train: data/new.jsonl, key_augmentation: none, steps: 1}
";

/// With everything done that comes before the choice; two pieces are copies of others.
fn place() -> Workplace {
    let place = Workplace::new();
    for (copy, of) in [("bach_91", "bach_00"), ("bach_92", "bach_05")] {
        fs::copy(place.path(&format!("scores/{of}.abc")), place.path(&format!("scores/{copy}.abc"))).unwrap();
    }
    place.write("s.yaml", RECIPE);
    place.good(&["s.yaml", "--until", "features"]);
    place
}

fn report(place: &Workplace, file: &str) -> Vec<Value> {
    place.read(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn by_name(report: &[Value], field: &str) -> HashMap<String, f64> {
    let name = |line: &Value| {
        let piece = line["piece"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        piece.trim_end_matches(".abc").to_owned()
    };
    report.iter().map(|line| (name(line), line[field].as_f64().unwrap())).collect()
}

fn published(place: &Workplace, start: &str) -> String {
    let entries = fs::read_dir(place.path("checkpoints")).unwrap().flatten().map(|entry| entry.path());
    let mut found = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(start));
    found.next().unwrap().display().to_string()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5
}

#[test]
fn the_ranking_is_that_of_logprob_and_score_and_copies_are_left_out() {
    let place = place();
    let ran = place.good(&["s.yaml", "--json"]);
    let lines = report(&place, "data/new_report.jsonl");
    assert_eq!(lines.len(), 14);

    // Every piece as `logprob` sees it.
    let weights = published(&place, "weights_notagen_s-pretrain");
    let index: Vec<Value> = report(&place, "data/augmented.jsonl");
    let file = |entry: &Value| {
        let (folder, name) = entry["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let key = entry["key"].as_str().unwrap();
        format!("{folder}/{key}/{name}_{key}.abc")
    };
    let files: Vec<String> = index.iter().map(file).collect();
    let arguments: Vec<&str> =
        ["logprob", "--json", "--weights", &weights].into_iter().chain(files.iter().map(String::as_str)).collect();
    let losses = place.good(&arguments).objects();
    let found = by_name(&lines, "log_probability");
    for (entry, loss) in index.iter().zip(&losses) {
        let name = entry["path"].as_str().unwrap().rsplit('/').next().unwrap();
        assert!(close(found[name], -loss["loss"].as_f64().unwrap()), "{name}: {} {loss}", found[name]);
    }
    let ranked: Vec<f64> = lines.iter().map(|line| line["log_probability"].as_f64().unwrap()).collect();
    assert!(ranked.windows(2).all(|pair| pair[0] >= pair[1]), "{ranked:?}");

    // And as `score` sees them together.
    let judge = published(&place, "weights_m3_s-m3");
    place.good(&["features", "--weights", &judge, "--input", "data/interleaved", "--output", "data/features"]);
    let score = place.good(&["score", "--reference", "data/reference", "--generated", "data/features", "--json"]);
    let mean = by_name(&lines, "clamp2_score").values().sum::<f64>() / 14.0;
    assert!(close(mean, score.objects()[0]["average_clamp2_score"].as_f64().unwrap()), "{mean}");
    let best_reference = lines.iter().find(|line| line["piece"].as_str().unwrap().contains("haydn")).unwrap();
    assert!(close(best_reference["similarity"].as_f64().unwrap(), 1.0), "{best_reference}");

    // Half of 14, none of them the copy of another.
    let verdict = |word: &str| lines.iter().filter(|line| line["verdict"] == word).collect::<Vec<_>>();
    let (chosen, copies) = (verdict("chosen"), verdict("duplicate"));
    assert_eq!(chosen.len(), 7);
    for copy in &copies {
        assert!(close(copy["bars_in_common"].as_f64().unwrap(), 1.0), "{copy}");
    }
    let paths: Vec<&Value> = chosen.iter().map(|line| &line["piece"]).collect();
    assert_eq!(report(&place, "data/new.jsonl").iter().map(|line| &line["path"]).collect::<Vec<_>>(), paths);
    for (one, other) in [("bach_00", "bach_91"), ("bach_05", "bach_92")] {
        let named = |name: &str| paths.iter().filter(|path| path.as_str().unwrap().ends_with(name)).count();
        assert!(named(one) + named(other) < 2, "{paths:?}");
    }
    let summary = &ran.events("summary")[0];
    let of = |name: &str| summary["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == name).unwrap();
    assert_eq!(of("select")["result"]["chosen"], 7);
    assert_eq!(of("post_train")["status"], "done");
    assert_eq!(place.good(&["plan", "s.yaml", "--json"]).objects()[4]["standing"], "done");

    // By likeness, through a threshold that three pieces reach, as the fourth of the other report says.
    let mut scores: Vec<f64> = lines.iter().map(|line| line["clamp2_score"].as_f64().unwrap()).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let threshold = format!("select.threshold={}", (scores[2] + scores[3]) / 2.0);
    let set = ["--set", "select.by=clamp2", "--set", "select.portion=null", "--set", "select.duplicates=null"];
    place.good(&[&["s.yaml", "--only", "select", "--set", &threshold], &set[..]].concat());
    assert_eq!(report(&place, "data/new.jsonl").len(), 3);
}

#[test]
fn a_choice_cut_short_goes_on_and_shares_of_it_come_to_the_same() {
    let place = place();
    place.good(&["s.yaml", "--only", "select"]);
    let (index, whole) = (place.read("data/new.jsonl"), place.read("data/new_report.jsonl"));

    // As a kill leaves it: a line cut short.
    let folder = fs::read_dir(place.path("runs/s")).unwrap().flatten().map(|entry| entry.path());
    let folder = folder.filter(|path| path.is_dir()).find(|path| path.to_string_lossy().ends_with("-select")).unwrap();
    let scores = fs::read_to_string(folder.join("scores.jsonl")).unwrap();
    fs::write(folder.join("scores.jsonl"), &scores[..scores.len() * 3 / 4]).unwrap();
    let mut state = place.json("runs/s/state.json");
    state["stages"]["select"]["status"] = "running".into();
    place.write("runs/s/state.json", &state.to_string());
    let ran = place.good(&["s.yaml", "--only", "select"]);
    assert!(ran.stderr().contains("6 pieces to score, 8 scored before"), "{}", ran.stderr());
    assert_eq!((place.read("data/new.jsonl"), place.read("data/new_report.jsonl")), (index.clone(), whole.clone()));

    // A setting that changes nothing about the choice makes the stage stale.
    for shard in ["0/2", "1/2"] {
        place.good(&["s.yaml", "--only", "select", "--set", "select.threshold=-99", "--shard", shard]);
    }
    let ran = place.good(&["s.yaml", "--only", "select", "--set", "select.threshold=-99"]);
    assert!(!ran.stderr().contains("to score"), "{}", ran.stderr());
    assert_eq!((place.read("data/new.jsonl"), place.read("data/new_report.jsonl")), (index, whole));
}

#[test]
fn the_command_chooses_from_a_folder_what_can_be_trained_on() {
    let place = place();
    let weights = published(&place, "weights_notagen_s-pretrain");
    let select = |corpus: &str, output: &str, more: &[&str]| -> Ran {
        let arguments = ["select", "--json", "--weights", &weights, "--corpus", corpus, "--output", output];
        place.good(&[&arguments[..], more].concat())
    };
    select("data/augmented.jsonl", "out/index.jsonl", &["--count", "4"]);
    let facts = &select("data/interleaved", "out/folder.jsonl", &["--count", "4"]).objects()[0];
    assert_eq!((&facts["chosen"], &facts["of"]), (&4.into(), &14.into()));
    // The same pieces, whichever form they are read in.
    let (one, other) = (report(&place, "out/index_report.jsonl"), report(&place, "out/folder_report.jsonl"));
    let (one, other) = (by_name(&one, "log_probability"), by_name(&other, "log_probability"));
    assert!(one.iter().all(|(name, value)| close(*value, other[name])), "{one:?} {other:?}");
    for entry in report(&place, "out/folder.jsonl") {
        let name = entry["path"].as_str().unwrap().strip_prefix("out/folder_pieces/").unwrap().to_owned();
        let file = |folder: &str| place.read(&format!("{folder}/{name}.abc"));
        assert_eq!(file("out/folder_pieces"), file("data/interleaved"));
    }
    let train = "post_train.train=out/folder.jsonl";
    place.good(&["s.yaml", "--only", "post_train", "--set", train, "--set", "post_train.key_augmentation=all"]);
    // A second time nothing is scored again.
    let ran = select("data/interleaved", "out/folder.jsonl", &["--threshold", "-99", "--duplicates", "2"]);
    assert_eq!(report(&place, "out/folder.jsonl").len(), 14);
    assert!(!ran.stderr().contains("to score"), "{}", ran.stderr());
}

#[test]
fn what_cannot_be_chosen_is_told() {
    let place = Workplace::empty();
    let wrong = |keys: &str, error: &str, hint: &str| {
        place.write(
            "w.yaml",
            &format!("name: w\nmodel: small\nstages:\n  - select: {{corpus: c.jsonl, output: o.jsonl, {keys}}}\n"),
        );
        place.run(&["w.yaml"]).fails(2, error, hint);
    };
    wrong("count: 1", "stage `select`: the key `init` is missing", "init:");
    wrong("init: w.pth", "one of `count`, `portion` and `threshold` is needed", "");
    wrong("init: w.pth, count: 1, portion: 0.5", "both `count` and `portion` are given", "");
    wrong("init: w.pth, count: 1, clamp2: c.pth", "`clamp2` and `reference` go together", "");
    wrong("by: clamp2, count: 1", "`by: clamp2` needs `clamp2` and `reference`", "");
    wrong("by: likelihood, count: 1", "unknown word `likelihood`", "log_probability");
    wrong("init: w.pth, threshold: .nan", "`threshold` is not a number", "");
    place.run(&["w.yaml", "--set", "select.threshold=0.5"]).fails(1, "missing: c.jsonl (corpus of stage select)", "");
    place.run(&["select", "--corpus", "c", "--output", "o", "--count", "1"]).fails(
        2,
        "nothing to rank the pieces by",
        "--weights",
    );
    place.run(&["select", "--corpus", "c", "--output", "o", "--weights", "w"]).fails(
        2,
        "--count, --portion and --threshold",
        "",
    );
}
