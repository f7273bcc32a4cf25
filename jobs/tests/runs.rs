//! A run does what is missing, says why, keeps out a second runner, and leaves what it says it leaves.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use common::{Ran, Workplace};
use serde_json::Value;

fn standings(plan: &Ran) -> Vec<String> {
    plan.objects().iter().map(|stage| stage["standing"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_recipe_runs_to_music_and_the_second_time_does_nothing() {
    let workplace = Workplace::new();
    assert_eq!(standings(&workplace.good(&["plan", "tiny.yaml", "--json"])), ["to do"; 4]);
    let run = workplace.good(&["tiny.yaml", "--json"]);
    assert_eq!(run.events("stage_ended").len(), 4);
    assert!(!run.events("step").is_empty() && !run.events("evaluated").is_empty());
    assert!(run.stderr().contains("alignment check"), "{}", run.stderr());

    for step in run.events("step") {
        let number = |key: &str| step[key].as_f64().unwrap_or_else(|| panic!("{key}: {step}"));
        assert!(number("tokens_per_second") > number("patches_per_second"), "{step}");
        assert!((0.0..1.0).contains(&number("data_wait")) && number("mfu") > 0.0 && number("mfu") < 1.0, "{step}");
        assert!(number("memory_peak") >= number("memory"), "{step}");
    }

    workplace.fingerprints_are_as_they_were("tiny");
    let summary = workplace.json("runs/tiny/summary.json");
    assert_eq!(summary["done"], true);
    let loss = |stage: usize| summary["stages"][stage]["result"]["eval_loss"].as_f64().unwrap();
    assert!(loss(2) < loss(1) && loss(1) < 5.0, "{summary}");
    assert_eq!(summary["stages"][2]["result"]["steps"], 6);
    assert_eq!(summary["stages"][3]["result"]["pieces"], 3);
    for file in
        ["recipe.yaml", "state.json", "02-pretrain/metrics.jsonl", "02-pretrain/log.txt", "04-generate/summary.json"]
    {
        assert!(workplace.path("runs/tiny").join(file).is_file(), "{file}");
    }
    assert!(!workplace.read("runs/tiny/04-generate/original/00001.abc").is_empty());
    assert!(workplace.published("tiny-pretrain").is_file() && workplace.published("tiny-finetune").is_file());
    // What was resolved is a recipe too.
    workplace.good(&["validate", "runs/tiny/recipe.yaml"]);

    assert_eq!(standings(&workplace.good(&["plan", "tiny.yaml", "--json"])), ["done"; 4]);
    let again = workplace.good(&["tiny.yaml", "--json"]);
    assert_eq!(again.events("stage_started").len(), 0, "{}", again.stderr());
    assert!(again.stderr().contains("pretrain: done, settings and inputs are as they were"));
    assert_eq!(workplace.json("runs/tiny/summary.json")["stages"], summary["stages"]);
    // A piece that is gone is written again, the same.
    let piece = workplace.path("runs/tiny/04-generate/original/00002.abc");
    let text = std::fs::read_to_string(&piece).unwrap();
    std::fs::remove_file(&piece).unwrap();
    let plan = workplace.good(&["plan", "tiny.yaml", "--json"]);
    assert_eq!(standings(&plan), ["done", "done", "done", "stale"]);
    let generate =
        plan.objects().into_iter().find(|stage| stage["stage"] == "generate" || stage["name"] == "generate").unwrap();
    assert_eq!(generate["reason"], "1 of its 3 pieces are missing");
    workplace.good(&["tiny.yaml"]);
    assert_eq!(std::fs::read_to_string(&piece).unwrap(), text);
    let status = &workplace.good(&["status", "tiny", "--json"]).objects()[0];
    assert_eq!(status["runner"], Value::Null);
    assert!(status["stages"].as_array().unwrap().iter().all(|stage| stage["status"] == "done"));
}

#[test]
fn a_changed_setting_or_input_makes_its_stage_and_those_after_it_stale() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "finetune"]);
    let plan = |set: &str| workplace.good(&["plan", "tiny.yaml", "--json", "--set", set]);

    let changed = plan("pretrain.learning_rate=1e-3");
    assert_eq!(standings(&changed), ["done", "stale", "stale", "to do"]);
    assert_eq!(changed.objects()[1]["reason"], "learning_rate 0.002 → 0.001");
    assert_eq!(changed.objects()[2]["reason"], "stage pretrain changed");
    assert_eq!(standings(&plan("finetune.steps=7")), ["done", "done", "stale", "to do"]);
    // These decide no result.
    for set in ["pretrain.checkpoint_every=7", "pretrain.workers=1", "finetune.log_every=3", "pretrain.tag=other"] {
        assert_eq!(standings(&plan(set)), ["done", "done", "done", "to do"], "{set}");
    }

    let best = std::fs::read(workplace.path("runs/tiny/03-finetune/checkpoints/best.pth")).unwrap();
    let run = workplace.good(&["tiny.yaml", "--only", "finetune", "--set", "finetune.steps=7"]);
    assert!(run.stderr().contains("finetune: stale, steps 6 → 7"), "{}", run.stderr());
    assert!(run.stderr().contains("its earlier folder is now runs/tiny/03-finetune.old-1"), "{}", run.stderr());
    assert_eq!(std::fs::read(workplace.path("runs/tiny/03-finetune.old-1/checkpoints/best.pth")).unwrap(), best);
    assert_eq!(workplace.json("runs/tiny/summary.json")["stages"][2]["result"]["steps"], 7);

    let score = workplace.read("scores/bach_00.abc");
    workplace.write("scores/bach_00.abc", &score);
    assert_eq!(standings(&plan("finetune.steps=7"))[0], "done", "the same contents");
    workplace.write("scores/bach_00.abc", &score.replace("Q:1/4=100", "Q:1/4=90"));
    let changed = plan("finetune.steps=7");
    assert_eq!(standings(&changed), ["stale", "stale", "stale", "to do"]);
    assert_eq!(changed.objects()[0]["reason"], "scores scores changed");

    std::fs::remove_file(workplace.path("data/augmented_train.jsonl")).unwrap();
    let reason = plan("finetune.steps=7").objects()[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("its output data/augmented_train.jsonl is missing"), "{reason}");
}

#[test]
fn published_weights_that_are_gone_are_published_again() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
    let published = workplace.published("tiny-pretrain");
    std::fs::remove_file(&published).unwrap();
    let run = workplace.good(&["tiny.yaml", "--until", "pretrain", "--json"]);
    assert_eq!(run.events("stage_started").len(), 0);
    assert!(published.is_file());
}

#[test]
fn a_selection_runs_those_stages_and_needs_the_others() {
    let workplace = Workplace::new();
    workplace.run(&["tiny.yaml", "--from", "finetune"]).fails(
        1,
        "starts from the weights of stage pretrain",
        "--from pretrain",
    );
    let run = workplace.good(&["tiny.yaml", "--only", "preprocess", "--json"]);
    assert_eq!(run.events("stage_started").len(), 1);
    let status = workplace.good(&["status", "tiny", "--json"]);
    assert!(status.stderr().contains("\ngenerate         to do\n"), "{}", status.stderr());
    let stages = status.objects()[0]["stages"].clone();
    let names: Vec<&str> = stages.as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["preprocess", "pretrain", "finetune", "generate"]);
    assert_eq!((&stages[0]["status"], &stages[3]["status"]), (&"done".into(), &Value::Null));
    let run = workplace.good(&["tiny.yaml", "--from", "pretrain", "--until", "pretrain", "--json"]);
    assert_eq!(run.events("stage_started")[0]["stage"], "pretrain");
    for command in [&["plan"][..], &["--dry-run"]] {
        let plan = workplace.good(&[command, &["tiny.yaml", "--only", "pretrain", "--fresh", "--json"]].concat());
        assert_eq!(standings(&plan)[..2], ["done", "stale"]);
        assert_eq!(plan.objects()[1]["reason"], "--fresh removes runs/tiny/02-pretrain");
    }
    let run = workplace.good(&["tiny.yaml", "--only", "pretrain", "--fresh", "--json"]);
    assert_eq!(run.events("stage_started").len(), 1);
    assert!(run.stderr().contains("--fresh removes runs/tiny/02-pretrain"), "{}", run.stderr());
}

#[test]
fn a_dry_run_leaves_nothing() {
    let workplace = Workplace::new();
    let run = workplace.good(&["tiny.yaml", "--dry-run"]);
    assert!(run.stderr().contains("to do: never run"), "{}", run.stderr());
    assert!(!workplace.path("runs").exists() && !workplace.path("data").exists());
}

#[test]
fn weights_of_another_size_are_refused_before_anything_starts() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
    let weights = workplace.published("tiny-pretrain").display().to_string();
    let init = format!("finetune.init={weights}");
    let name = "name=other";
    let wider = ["--set", "model.hidden_size=128", "--set", &init, "--set", name, "--only", "finetune"];
    let run = workplace.run(&[&["tiny.yaml"][..], &wider].concat());
    run.fails(2, "hidden_size 64, the recipe's `model` 128", "hidden_size: 64");
    assert!(!workplace.path("runs/other").exists());
    workplace.write("broken.pth", "no weights");
    let run = workplace.run(&["tiny.yaml", "--set", "finetune.init=broken.pth", "--set", name, "--only", "finetune"]);
    run.fails(1, "broken.pth", "");
}

#[test]
fn a_file_of_the_originals_is_not_overwritten() {
    let workplace = Workplace::new();
    let name =
        "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_12_c_layers_3_h_size_768_lr_0.0002_batch_8.pth";
    workplace.write(&format!("checkpoints/{name}"), "precious");
    workplace.write(
        "r.yaml",
        "name: r\nmodel: small\nstages: [pretrain: {train: t.jsonl, tag: pretrain, learning_rate: 2.0e-4, batch_size: 8}]\n",
    );
    workplace.write("t.jsonl", "");
    workplace.run(&["r.yaml"]).fails(2, "would overwrite", "pretrain.tag=mine");
    assert_eq!(workplace.read(&format!("checkpoints/{name}")), "precious");
}

#[test]
fn a_failed_stage_is_recorded_and_goes_on_when_what_was_wrong_is_mended() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--only", "preprocess"]);
    let folder = workplace.path("data/augmented");
    let aside = workplace.path("data/aside");
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let run = workplace.run(&["tiny.yaml", "--until", "pretrain", "--json"]);
    run.fails(1, "stage pretrain: ", "");
    assert!(run.stderr().contains(".abc"), "{}", run.stderr());
    let state = workplace.json("runs/tiny/state.json");
    assert_eq!(state["stages"]["pretrain"]["status"], "failed");
    std::fs::remove_dir(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
}

#[test]
fn two_runners_of_one_run_exclude_each_other() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--only", "preprocess"]);
    let long = ["tiny.yaml", "--until", "pretrain", "--set", "pretrain.epochs=5000"];
    let mut first = workplace.command(&long).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("loss")).unwrap().unwrap();
    let holder = format!("is being run by process {}", first.id());
    workplace.run(&long).fails(1, &holder, "notagen-train status");
    let status = &workplace.good(&["status", "tiny", "--json"]).objects()[0];
    assert!(status["runner"].as_str().unwrap().contains(&first.id().to_string()), "{status}");
    assert!(status["stages"][1]["last"]["step"].as_u64().is_some(), "{status}");
    first.kill().unwrap();
    first.wait().unwrap();
    workplace.good(&["tiny.yaml", "--only", "preprocess"]);
}

#[test]
fn pieces_to_listen_to_are_written_and_change_nothing() {
    let (with, without) = (Workplace::new(), Workplace::new());
    let listen = "pretrain.listen={every: 1, samples: 2, max_patches: 8, sampling: {top_k: 3}}";
    let ran = with.good(&["tiny.yaml", "--until", "pretrain", "--json", "--set", listen]);
    without.good(&["tiny.yaml", "--until", "pretrain"]);
    let weights = |place: &Workplace| std::fs::read(place.published("tiny-pretrain")).unwrap();
    assert!(weights(&with) == weights(&without));
    assert_eq!(ran.events("samples").iter().map(|event| event["epoch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    let folder = with.path("runs/tiny/02-pretrain/samples");
    for epoch in ["epoch-0001", "epoch-0002"] {
        let files = std::fs::read_dir(folder.join(epoch)).unwrap().flatten().map(|entry| entry.file_name());
        let mut files: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
        files.sort();
        // A network of two epochs need not write what MusicXML and MIDI can be made of.
        assert_eq!(files.iter().filter(|name| name.ends_with(".abc")).count(), 2, "{files:?}");
    }
    // Whether and how it is listened to is no reason to train again.
    let plan = with.good(&["plan", "tiny.yaml", "--json", "--until", "pretrain"]).objects();
    assert_eq!(plan[1]["standing"], "done");
    let report = with.read("runs/tiny/report.html");
    assert!(report.contains("Pieces written during pretrain"), "no pieces in the report");
}

#[test]
fn a_stage_of_precision_auto_goes_on_as_it_began_and_begins_as_the_machine_is() {
    let workplace = Workplace::new();
    let on_avx2 = |arguments: &[&str]| {
        let ran = Ran(workplace.command(arguments).env("ONEDNN_MAX_CPU_ISA", "AVX2").output().unwrap());
        assert_eq!(ran.code(), 0, "{}", ran.stderr());
        ran
    };
    let begun = on_avx2(&["tiny.yaml", "--until", "pretrain", "--set", "precision=bf16", "--json"]);
    assert_eq!(begun.stderr().matches("warning: bf16 is slow here").count(), 1, "{}", begun.stderr());
    assert!(begun.stderr().contains("times as long as in fp32 ("), "{}", begun.stderr());

    let auto = ["tiny.yaml", "--json", "--set", "precision=auto"];
    let plan = on_avx2(&[&["plan"], &auto[..]].concat());
    assert_eq!(standings(&plan), ["done", "done", "to do", "to do"]);
    let precision = |stage: usize| plan.objects()[stage]["settings"]["precision"].clone();
    assert_eq!([precision(1), precision(2), precision(3)], ["bf16", "fp32", "fp32"]);
    assert!(plan.stderr().contains("precision auto is fp32: "), "{}", plan.stderr());
    assert!(plan.stderr().contains("goes on in bf16, as it began; begun here it would be fp32"), "{}", plan.stderr());
    let fresh = on_avx2(&[&["plan"], &auto[..], &["--fresh"]].concat());
    assert_eq!(fresh.objects()[1]["settings"]["precision"], "fp32");

    let state = workplace.read("runs/tiny/state.json");
    let (before, pretrain) = state.split_once("\"pretrain\": {").unwrap();
    workplace.write(
        "runs/tiny/state.json",
        &format!("{before}\"pretrain\": {{{}", pretrain.replacen("done", "interrupted", 1)),
    );
    let run = on_avx2(&[&auto[..], &["--until", "finetune"]].concat());
    assert!(run.stderr().contains("pretrain: unfinished"), "{}", run.stderr());
    assert!(run.stderr().contains("[pretrain] goes on in bf16, as it began"), "{}", run.stderr());
    assert!(workplace.read("runs/tiny/03-finetune/log.txt").contains("precision auto is fp32"));
    let state = workplace.json("runs/tiny/state.json");
    let of = |stage: &str| state["stages"][stage]["fingerprint"]["settings"]["precision"].clone();
    assert_eq!([of("pretrain"), of("finetune")], ["bf16", "fp32"]);
    let recipe = workplace.read("runs/tiny/recipe.yaml");
    assert!(recipe.contains("precision: bf16") && !recipe.contains("auto"), "{recipe}");
    assert!(workplace.read("runs/tiny/report.html").contains("precision: auto is fp32"));
}

#[test]
fn pieces_batched_by_length_are_a_setting_that_decides_the_result() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
    let weights = std::fs::read(workplace.published("tiny-pretrain")).unwrap();
    let by_length = ["tiny.yaml", "--until", "pretrain", "--set", "pretrain.batch_by=length"];
    let run = workplace.good(&by_length);
    assert!(run.stderr().contains("pretrain: stale, batch_by unset → \"length\""), "{}", run.stderr());
    assert_ne!(std::fs::read(workplace.published("tiny-pretrain")).unwrap(), weights);
    // What is left out is the original's way.
    let plan =
        workplace.good(&["plan", "tiny.yaml", "--until", "pretrain", "--set", "pretrain.batch_by=random", "--json"]);
    assert_eq!(plan.objects()[1]["reason"], "batch_by \"length\" → unset");
    workplace.run(&["plan", "tiny.yaml", "--set", "pretrain.batch_by=size"]).fails(2, "unknown word `size`", "");
}

#[test]
fn a_profile_has_the_parts_of_steps_and_rounds() {
    let workplace = Workplace::new();
    let run = workplace.good(&["tiny.yaml", "--profile", "2"]);
    assert!(run.stderr().contains("profile: runs/tiny/02-pretrain/profile.json"), "{}", run.stderr());
    for (stage, parts) in [
        ("02-pretrain", &["wait for a batch", "forward", "backward", "optimizer", "aten::mm"][..]),
        ("04-generate", &["write", "aten::layer_norm"]),
    ] {
        let trace = workplace.json(&format!("runs/tiny/{stage}/profile.json"));
        let events = trace["traceEvents"].as_array().unwrap();
        for part in parts {
            let count = events.iter().filter(|event| event["name"] == *part && event["ph"] == "X").count();
            assert!(if part.starts_with("aten") { count > 0 } else { count == 2 }, "{count} times {part} in {stage}");
        }
    }
}

#[test]
fn going_on_from_a_file_at_its_last_epoch_leaves_best_weights_all_the_same() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
    let from = workplace.published("tiny-pretrain").display().to_string();
    let resume = format!("pretrain.resume_from={from}");
    // The file's own loss counts as the best, and no step is left to take, or none betters it.
    for (name, epochs) in [("name=again", "pretrain.epochs=1"), ("name=further", "pretrain.epochs=3")] {
        let rate = "pretrain.learning_rate=1e-30";
        let sets = ["--set", name, "--set", epochs, "--set", resume.as_str(), "--set", rate];
        let run = workplace.good(&[&["tiny.yaml", "--only", "pretrain"], &sets[..]].concat());
        assert!(run.stderr().contains("[pretrain] done in"), "{}", run.stderr());
        assert!(workplace.published(&format!("{}-pretrain", &name[5..])).is_file());
    }
}
