//! All of NotaGen-X at its smallest, on real scores, and the page that tells of it.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::fs;

use common::{Workplace, root};
use serde_json::Value;

#[test]
fn the_whole_procedure_runs_on_real_scores_and_is_reported() {
    let place = Workplace::empty();
    let scores = root().join("data/quickstart/scores");
    assert!(scores.is_dir(), "{} is missing: run scripts/corpus", scores.display());
    fs::create_dir_all(place.path("data/quickstart")).unwrap();
    std::os::unix::fs::symlink(scores, place.path("data/quickstart/scores")).unwrap();
    let recipe = root().join("recipes/notagen-x-tiny.yaml").display().to_string();
    let mut command = place.command(&[&recipe]);
    let output = command.env("OMP_NUM_THREADS", "2").env("OMP_WAIT_POLICY", "PASSIVE").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");

    let summary = place.json("runs/notagen-x-tiny/summary.json");
    assert_eq!(summary["done"], true, "{told}");
    let stages: Vec<&str> =
        summary["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(
        stages,
        [
            "preprocess",
            "pretrain",
            "m3",
            "reference",
            "classical",
            "post_train",
            "finetune",
            "rl",
            "gathered",
            "post_train-2",
            "finetune-2",
            "rl-2",
            "generate"
        ]
    );
    // The second round starts from the pre-trained weights again, and trains on what those of RL have chosen.
    assert!(told.contains("[gathered] ") && told.contains("pieces chosen by log_probability"), "{told}");
    assert!(told.contains("[post_train-2] starts from runs/notagen-x-tiny/02-pretrain/checkpoints/best.pth"), "{told}");
    let gathered: Vec<Value> = place
        .read("runs/notagen-x-tiny/gathered_report.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(gathered.iter().all(|line| line["log_probability"].is_f64() && line["clamp2_score"].is_f64()));
    let classical = place.read("runs/notagen-x-tiny/classical.jsonl");
    assert_ne!(classical, place.read("runs/notagen-x-tiny/gathered.jsonl"));
    for file in ["notagenx-tiny-RL3", "notagenx2-tiny-RL3"] {
        let start = format!("weights_notagen_{file}_beta_0.1_lambda_10");
        let mut found = fs::read_dir(place.path("checkpoints")).unwrap().flatten();
        assert!(found.any(|entry| entry.file_name().to_string_lossy().starts_with(&start)), "{start}");
    }

    let stage = |name: &str| {
        let state = place.json("runs/notagen-x-tiny/state.json");
        format!("runs/notagen-x-tiny/{}", state["stages"][name]["folder"].as_str().unwrap())
    };
    for epoch in ["epoch-0050", "epoch-0100"] {
        for end in ["abc", "musicxml", "mid"] {
            let file = format!("{}/samples/{epoch}/00001.{end}", stage("finetune"));
            assert!(fs::metadata(place.path(&file)).unwrap().len() > 50, "{file}");
        }
    }
    check_page(&place.read("runs/notagen-x-tiny/report.html"));

    // Written anew it says the same, but for the time of writing.
    let without_time = |page: &str| page.split("<footer>").next().unwrap().to_owned();
    let page = place.read("runs/notagen-x-tiny/report.html");
    place.good(&["report", "notagen-x-tiny"]);
    assert_eq!(without_time(&page), without_time(&place.read("runs/notagen-x-tiny/report.html")));
}

/// It needs no other file, and has what it should.
fn check_page(page: &str) {
    for attribute in ["href=\"", "src=\""] {
        for link in page.split(attribute).skip(1) {
            assert!(link.starts_with("data:"), "{}", &link[..link.len().min(80)]);
        }
    }
    for foreign in ["<script", "<link", "<img", "<iframe", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for part in [
        "<h1>notagen-x-tiny</h1>",
        "best: epoch ",
        "Reinforcement learning: rl-2",
        "Pieces of generate",
        "Pieces written during finetune-2",
        "data:text/vnd.abc;base64,",
        "data:application/vnd.recordare.musicxml+xml;base64,",
        "data:audio/midi;base64,",
        "weights of rl-2.3.dpo",
        "corpus of gathered",
        "patch_layers: 2",
    ] {
        assert!(page.contains(part), "{part}");
    }
}
