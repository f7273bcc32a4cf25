//! `score` and `prefer` against a plain reading of the original in numpy and abctoolkit.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::process::Command;

use common::{Workplace, root};
use serde_json::Value;

const PREFER: [&str; 15] = [
    "prefer",
    "--reference",
    "reference",
    "--features",
    "features",
    "--interleaved",
    "interleaved",
    "--original",
    "original",
    "--select",
    "0.15",
    "--output",
    "out/preferences.json",
    "--json",
    "--similarity-limit=0.95",
];

/// Pieces and features in the workplace, and what the original's way makes of them.
fn made(place: &Workplace) -> Value {
    let packages = root().join(".tools/python");
    assert!(packages.exists(), "no {}: run scripts/setup --tests", packages.display());
    let script = root().join("jobs/tests/python/make_preferences.py");
    let out = Command::new("python3").env("PYTHONPATH", packages).arg(script).arg(place.path("")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // abctoolkit prints before.
    serde_json::from_str(String::from_utf8_lossy(&out.stdout).lines().last().unwrap()).unwrap()
}

#[test]
fn the_choice_is_the_originals_ties_included() {
    let place = Workplace::empty();
    let expected = made(&place);
    let ran = place.good(&PREFER);
    assert_eq!(place.json("out/preferences.json"), expected["preferences"]);
    // Byte for byte what Python's json.dump(…, indent=4) writes.
    assert!(place.read("out/preferences.json").starts_with("{\n    \"chosen\": [\n        \"original/"));
    let report: Vec<Value> =
        place.read("out/preferences_report.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let passed_over: Vec<&Value> = report.iter().filter(|line| line["verdict"] == "passed over").collect();
    let names: Vec<&str> = passed_over.iter().map(|line| line["piece"].as_str().unwrap()).collect();
    assert_eq!(Value::from(names), expected["skipped"]);
    for reason in ["not aligned", "staves not grouped", "too like a reference"] {
        let of = passed_over.iter().filter(|line| line["reasons"].as_array().unwrap().contains(&reason.into()));
        assert!(of.count() > 0, "no piece was passed over as {reason}: the comparison has lost its point");
    }
    let object = &ran.objects()[0];
    assert_eq!((&object["chosen"], &object["wanted"], &object["rejected"]), (&9.into(), &9.into(), &9.into()));

    let score = place.good(&["score", "--reference", "reference", "--generated", "features", "--json"]);
    let found = &score.objects()[0];
    let difference = found["average_clamp2_score"].as_f64().unwrap() - expected["average"].as_f64().unwrap();
    assert!(difference.abs() < 1e-6, "{difference}");
    assert_eq!(found["pieces"], 60);
    let counts = found["histogram"]["counts"].as_array().unwrap();
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 60);
    let quantiles =
        ["0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"].map(|portion| found["quantiles"][portion].as_f64());
    assert!(quantiles.iter().all(Option::is_some) && quantiles.is_sorted(), "{quantiles:?}");
    assert_eq!(found["histogram"]["edges"].as_array().unwrap().len(), counts.len() + 1);
}

#[test]
fn a_choice_of_nothing_leaves_the_preferences_before_it() {
    let place = Workplace::empty();
    made(&place);
    place.good(&PREFER);
    let before = place.read("out/preferences.json");
    let mut strict = PREFER;
    strict[14] = "--similarity-limit=0";
    place.run(&strict).fails(1, "no piece passes the checks", "similarity_limit");
    assert_eq!(place.read("out/preferences.json"), before);
}

#[test]
fn what_does_not_go_together_is_named() {
    let place = Workplace::empty();
    made(&place);
    std::fs::remove_dir_all(place.path("interleaved")).unwrap();
    place.run(&PREFER).fails(1, "interleaved/", "the folders go together");
    place.write("features/00007.npy", "not a feature");
    place.run(&PREFER).fails(1, "features/00007.npy", "");
    place.run(&["score", "--reference", "reference", "--generated", "nowhere", "--json"]).fails(1, "nowhere", "");
    std::fs::create_dir(place.path("empty")).unwrap();
    place.run(&["score", "--reference", "empty", "--generated", "reference"]).fails(
        1,
        "empty: no features",
        "notagen-train features",
    );
}

#[test]
fn a_score_that_falls_and_a_choice_that_comes_short_are_told() {
    let place = Workplace::empty();
    for (folder, features) in [("reference", [1.0, 0.0]), ("near", [1.0, 0.1]), ("far", [1.0, 1.0])] {
        std::fs::create_dir(place.path(folder)).unwrap();
        model::features::write(&place.path(&format!("{folder}/a.npy")), &features).unwrap();
    }
    let recipe = |first: &str, second: &str| {
        let stage = |round: usize, generated: &str| {
            format!(
                "  - score: {{name: round-{round}, reference: reference, generated: {generated}, round: {round}, plot: curve}}\n"
            )
        };
        place.write("r.yaml", &format!("name: r\nstages:\n{}{}", stage(0, first), stage(1, second)));
        place.good(&["r.yaml"]).stderr()
    };
    let text = recipe("near", "far");
    assert!(text.contains("warning: the average score fell from 0.9950 to 0.7071"), "{text}");
    for round in ["score-0", "score-1"] {
        assert!(std::fs::read_dir(place.path("curve").join(round)).unwrap().count() > 0, "{round} has no curve");
    }
    let text = recipe("far", "near");
    assert!(!text.contains("warning"), "{text}");

    let place = Workplace::empty();
    made(&place);
    let mut arguments = PREFER;
    arguments[10] = "0.5";
    arguments[14] = "--similarity-limit=0.7";
    let ran = place.good(&arguments);
    let object = &ran.objects()[0];
    let (chosen, wanted) = (object["chosen"].as_u64().unwrap(), object["wanted"].as_u64().unwrap());
    assert!(chosen < wanted && wanted == 30, "{object}");
    let told = format!("warning: only {chosen} pieces pass the checks of the 30 wanted; out/preferences_report.jsonl");
    assert!(ran.stderr().contains(&told), "{}", ran.stderr());
}
