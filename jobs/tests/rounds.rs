//! Rounds of CLaMP-DPO on a small network and a small judge: the parts, their table, and kills inside each of them.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::Workplace;
use serde_json::Value;

const PARTS: [&str; 5] = ["generate", "features", "score", "prefer", "dpo"];

/// With everything done that comes before the rounds.
fn trained() -> Workplace {
    let place = Workplace::empty();
    place.write("rounds.yaml", include_str!("rounds.yaml"));
    for number in 0..16 {
        place.write(&format!("scores/{}_{number:02}.abc", if number < 10 { "bach" } else { "haydn" }), &score(number));
    }
    place.good(&["rounds.yaml", "--until", "m3"]);
    place
}

/// Three bars of two voices, so plain that a small network learns their form in seconds.
fn score(number: usize) -> String {
    let note = |at: usize| ["C2", "D2", "E2", "G2"][(number * 7 + at * (3 + number % 3)) % 4];
    let bar = |bar: usize| (0..4).map(|beat| note(bar * 4 + beat)).collect::<Vec<_>>().join(" ");
    let low = |bar: usize| ["C,8", "G,8"][(number + bar * (1 + number % 2)) % 2];
    let line = |of: &dyn Fn(usize) -> String| format!(" {} |] %3", (0..3).map(of).collect::<Vec<_>>().join(" | "));
    format!(
        "X:1\nT:Piece\n%%score {{ 1 | 2 }}\nL:1/8\nM:4/4\nK:C\nV:1 treble nm=\"Violin\"\nV:2 bass nm=\"Cello\"\n\
         V:1\n{}\nV:2\n{}\n",
        line(&bar),
        line(&|at| low(at).to_owned())
    )
}

fn copy(place: &Workplace) -> Workplace {
    let copy = Workplace::empty();
    let from = format!("{}/.", place.path("").display());
    assert!(Command::new("cp").args(["-a", &from]).arg(copy.path("")).status().unwrap().success());
    copy
}

/// What both rounds chose, the weights that they came to, and the pieces of the last.
fn results(place: &Workplace) -> Vec<Vec<u8>> {
    let folder = |part: &str| {
        let state = place.json("runs/rounds/state.json");
        format!("runs/rounds/{}", state["stages"][part]["folder"].as_str().unwrap())
    };
    let mut results = Vec::new();
    for round in ["1", "2"] {
        results.push(place.path(&format!("runs/rounds/rl/{round}/preferences.json")));
        results.push(place.path(&format!("{}/checkpoints/best.pth", folder(&format!("rl.{round}.dpo")))));
    }
    let pieces = place.path("runs/rounds/rl/final/original");
    let mut pieces: Vec<_> = std::fs::read_dir(pieces).unwrap().map(|entry| entry.unwrap().path()).collect();
    pieces.sort();
    results.extend(pieces);
    results.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn status(place: &Workplace, part: &str) -> Value {
    let text = std::fs::read_to_string(place.path("runs/rounds/state.json")).unwrap_or_default();
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    state["stages"][part]["status"].clone()
}

#[test]
fn rounds_are_run_part_by_part_and_a_kill_inside_any_part_changes_nothing() {
    let whole = trained();
    let (killed, two) = (copy(&whole), copy(&whole));
    let ran = whole.good(&["rounds.yaml", "--json"]);

    whole.fingerprints_are_as_they_were("rounds");
    let summary = whole.json("runs/rounds/summary.json");
    let stages: Vec<&str> =
        summary["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["preprocess", "pretrain", "m3", "rl"]);
    let rl = &summary["stages"][3];
    assert_eq!((&rl["status"], rl["parts"].as_array().unwrap().len()), (&"done".into(), 1 + 5 + 5 + 3));
    let scores = rl["result"]["scores"].as_array().unwrap();
    assert_eq!(scores.iter().map(|score| score["round"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(scores.iter().all(|score| score["average_clamp2_score"].as_f64().unwrap() > 0.0));
    assert!(ran.stderr().contains("rounds of DPO"), "{}", ran.stderr());
    for round in ["RL1", "RL2"] {
        let name = format!(
            "weights_notagen_rounds-{round}_beta_0.1_lambda_10_p_size_16_p_length_40_p_layers_2_c_layers_1_h_size_64_lr_0.0005.pth"
        );
        assert!(whole.path("checkpoints").join(name).is_file(), "{round}");
    }
    // The second round starts from the first one's weights.
    let starts = ran.stderr();
    assert!(starts.contains("[rl.2.dpo] starts from runs/rounds/09-rl.1.dpo/checkpoints/best.pth"), "{starts}");
    let choice: Value = whole.json("runs/rounds/rl/1/preferences.json");
    assert!(choice["chosen"][0].as_str().unwrap().starts_with("runs/rounds/rl/1/original/"));

    let mut kills = 0;
    for part in PARTS {
        let name = format!("rl.1.{part}");
        let seconds = whole.json("runs/rounds/state.json")["stages"][&name]["seconds"].as_f64().unwrap();
        // A part of a few milliseconds may be over before the kill: then it is killed in the next one.
        for attempt in 0..4 {
            let mut run = killed.command(&["rounds.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let begun = Instant::now();
            while status(&killed, &name) != "running" && run.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < Duration::from_secs(300), "{name} does not begin");
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_secs_f64(seconds * f64::from(attempt) / 5.0));
            if status(&killed, &name) == "running" {
                run.kill().unwrap();
                kills += 1;
            } else {
                run.kill().unwrap();
            }
            run.wait().unwrap();
            if status(&killed, &name) == "done" {
                break;
            }
        }
    }
    // A part that is over sooner than it is seen to run is not killed; writing pieces and learning take long enough.
    assert!(kills >= 2, "{kills} kills");
    killed.good(&["rounds.yaml"]);
    for (number, (one, other)) in results(&whole).iter().zip(&results(&killed)).enumerate() {
        assert!(one == other, "result {number} differs");
    }

    // All is done, and a changed setting makes stale what depends on it, and nothing before.
    let standing = |arguments: &[&str]| -> Vec<String> {
        let plan = whole.good(&[&["plan", "rounds.yaml", "--json"], arguments].concat()).objects();
        let of = plan.iter().filter(|stage| stage["standing"] != "done");
        of.map(|stage| stage["stage"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(standing(&[]), [""; 0]);
    let stale = standing(&["--set", "rl.dpo.beta=0.2"]);
    assert_eq!(stale[0], "rl.1.dpo");
    assert_eq!(standing(&["--set", "rl.dpo.checkpoint_every=7", "--set", "rl.batch_size=4"]), [""; 0]);
    assert_eq!(standing(&["--only", "rl.2.prefer", "--set", "rl.select=0.3"]), ["rl.2.prefer"]);

    two_processes_do_the_same(&whole, &two);
}

/// Pieces, features, DPO and M3 on two processes, each with half as much a step, against one.
fn two_processes_do_the_same(one: &Workplace, two: &Workplace) {
    one.good(&["rounds.yaml", "--only", "rl.1.dpo", "--set", "rl.dpo.batch_size=2"]);
    two.good(&["rounds.yaml", "--until", "rl.1.dpo", "--nproc", "2", "--set", "rl.dpo.shard_optimizer=true"]);
    two.good(&["rounds.yaml", "--only", "m3", "--nproc", "2", "--set", "m3.batch_size=2"]);
    let all = |place: &Workplace, folder: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let folder = place.path(&format!("runs/rounds/rl/1/{folder}"));
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        files.iter().map(|path| (path.file_name().unwrap().into(), std::fs::read(path).unwrap())).collect()
    };
    assert!(all(one, "original") == all(two, "original"), "other pieces");
    let features = (all(one, "features"), all(two, "features"));
    assert_eq!(features.0.len(), 24);
    assert!(features.0.iter().map(|(name, _)| name).eq(features.1.iter().map(|(name, _)| name)));
    let result = |place: &Workplace, stage: &str, number: &str| {
        place.json("runs/rounds/state.json")["stages"][stage]["result"][number].as_f64().unwrap()
    };
    assert_eq!(one.read("runs/rounds/rl/1/preferences.json"), two.read("runs/rounds/rl/1/preferences.json"));
    for (stage, number) in [
        ("m3", "eval_loss"),
        ("rl.1.score", "average_clamp2_score"),
        ("rl.1.dpo", "train_loss"),
        ("rl.1.dpo", "loss"),
        ("rl.1.dpo", "chosen_logp_end"),
    ] {
        let (one, two) = (result(one, stage, number), result(two, stage, number));
        assert!((one / two - 1.0).abs() < 1e-4, "{stage}, {number}: one process {one}, two {two}");
    }
}

#[test]
fn what_rounds_cannot_do_is_said_before_anything_runs() {
    let place = Workplace::empty();
    let recipe = |rl: &str| format!("name: r\nmodel: small\nstages:\n  - rl: {rl}\n");
    let wrong = |rl: &str, error: &str, hint: &str| {
        place.write("r.yaml", &recipe(rl));
        place.run(&["r.yaml"]).fails(2, error, hint);
    };
    wrong("{clamp2: c.pth, reference: ref}", "stage `rl.1.generate`: the key `init` is missing", "init:");
    wrong("{init: w.pth, clamp2: 'stage:judge', reference: ref}", "no earlier m3 stage is called `judge`", "m3 stage");
    wrong("{init: w.pth, clamp2: c.pth, reference: ref, samples: 9}", "`select` 0.1 of 9 `samples` is no piece", "");
    wrong("{init: w.pth, clamp2: c.pth, reference: ref, select: 0.6}", "`select` is above 0.5", "");
    wrong("{init: w.pth, clamp2: c.pth, reference: ref, dpo: {betta: 1}}", "unknown key `betta`", "beta");
    place.write("r.yaml", &recipe("{init: w.pth, clamp2: c.pth, reference: ref}"));
    place.run(&["r.yaml"]).fails(1, "missing: ref (input of stage rl.reference)", "");
    place.write("w.pth", "");
    place.write("c.pth", "");
    std::fs::create_dir(place.path("ref")).unwrap();
    place.run(&["r.yaml"]).fails(1, "c.pth", "");
}
