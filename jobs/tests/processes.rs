//! A recipe on several processes: the same result, and what happens when one of them does not go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::Workplace;

/// Trains for a while, without anything random that depends on the number of processes.
const LONG: [&str; 11] = [
    "tiny.yaml",
    "--until",
    "pretrain",
    "--set",
    "model.dropout=0",
    "--set",
    "pretrain.epochs=24",
    "--set",
    "pretrain.checkpoint_every=3",
    "--nproc",
    "2",
];

fn start(workplace: &Workplace, more: &[&str], timeout: u32) -> Child {
    let mut command = workplace.command(&LONG);
    command.args(more).env("NOTAGEN_TRAIN_TIMEOUT", timeout.to_string());
    command.stdout(Stdio::null()).stderr(fs::File::create(workplace.path("stderr")).unwrap()).spawn().unwrap()
}

/// The process id of a rank that a supervisor has started.
fn worker(supervisor: &Child, rank: usize) -> String {
    let rank = format!("RANK={rank}");
    let is = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{}", supervisor.id()))
            && variables.split(|&byte| byte == 0).any(|variable| variable == rank.as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    pids.into_iter().find(|pid| pid.parse::<u32>().is_ok() && is(pid)).expect("no such rank")
}

fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Waits until the training has come to a step, or beyond.
fn at_step(workplace: &Workplace, wanted: u64) {
    let begun = Instant::now();
    let metrics = workplace.path("runs/tiny/02-pretrain/metrics.jsonl");
    loop {
        let text = fs::read_to_string(&metrics).unwrap_or_default();
        let steps = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if steps.filter(|line| line["event"] == "step").any(|line| line["step"].as_u64().unwrap() >= wanted) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", workplace.read("stderr"));
        thread::sleep(Duration::from_millis(5));
    }
}

/// How a run ended, within a time.
fn end(mut run: Child, within: u64) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = run.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if begun.elapsed() > Duration::from_secs(within) {
            run.kill().unwrap();
            panic!("still running after {within} s");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn best(workplace: &Workplace) -> Vec<u8> {
    fs::read(workplace.path("runs/tiny/02-pretrain/checkpoints/best.pth")).unwrap()
}

#[test]
fn two_processes_give_what_one_gives() {
    let run = |nproc: &str, batch: &str| {
        let workplace = Workplace::new();
        let (pretrain, finetune) = (format!("pretrain.batch_size={batch}"), format!("finetune.batch_size={batch}"));
        let settings = ["tiny.yaml", "--set", "model.dropout=0", "--set", &pretrain, "--set", &finetune];
        let more = ["--set", "finetune.accumulation_steps=1", "--nproc", nproc];
        workplace.good(&[&settings[..], &more].concat());
        let summary = workplace.json("runs/tiny/summary.json");
        assert_eq!(summary["done"], true);
        let loss = |stage: usize| summary["stages"][stage]["result"]["eval_loss"].as_f64().unwrap();
        let pieces = workplace.json("runs/tiny/04-generate/summary.json")["pieces"].as_u64().unwrap();
        let text = |piece: u64| workplace.read(&format!("runs/tiny/04-generate/original/{piece:05}.abc"));
        assert!(!workplace.path("runs/tiny/04-generate/summary-1-of-2.json").exists());
        (loss(1), loss(2), pieces, (1..=pieces).map(text).collect::<Vec<_>>())
    };
    let (one, two) = (run("1", "2"), run("2", "1"));
    assert!((one.0 / two.0 - 1.0).abs() < 1e-6 && (one.1 / two.1 - 1.0).abs() < 1e-6, "{one:?}\n{two:?}");
    assert_eq!((one.2, &one.3), (3, &two.3));
}

#[test]
fn a_rank_killed_in_the_middle_ends_the_run_and_it_goes_on_to_the_same_weights() {
    let whole = Workplace::new();
    whole.good(&LONG);
    // Started again by its supervisor, and by hand.
    for (more, code) in [(vec!["--max-restarts", "1"], 0), (vec![], 1)] {
        let killed = Workplace::new();
        let run = start(&killed, &more, 60);
        at_step(&killed, 5);
        signal("-KILL", &worker(&run, 1));
        assert_eq!(end(run, 120), code, "{}", killed.read("stderr"));
        assert!(killed.read("stderr").contains("rank 1 was killed by signal 9"), "{}", killed.read("stderr"));
        killed.good(&LONG);
        assert!(best(&killed) == best(&whole), "{more:?}: other weights");
    }
}

#[test]
fn a_rank_that_hangs_is_named_within_the_time_out() {
    let workplace = Workplace::new();
    let run = start(&workplace, &[], 3);
    at_step(&workplace, 5);
    signal("-STOP", &worker(&run, 1));
    let begun = Instant::now();
    assert_eq!(end(run, 60), 1);
    println!("ended after {:.1} s", begun.elapsed().as_secs_f64());
    let told = workplace.read("stderr");
    assert!(told.contains("rank 1 ended or hangs: no sign of life"), "{told}");
}

#[test]
fn sigterm_saves_once_and_one_process_goes_on() {
    let workplace = Workplace::new();
    let run = start(&workplace, &[], 60);
    at_step(&workplace, 5);
    signal("-TERM", &run.id().to_string());
    assert_eq!(end(run, 60), 75, "{}", workplace.read("stderr"));
    let told = workplace.read("stderr");
    assert_eq!(told.matches("interrupted: ").count(), 1, "{told}");
    let alone: Vec<&str> = LONG[..9].to_vec();
    workplace.good(&alone);
    assert_eq!(workplace.json("runs/tiny/summary.json")["stages"][1]["status"], "done");
}

#[test]
fn a_rank_that_fails_is_shown_with_the_end_of_its_log() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--only", "preprocess"]);
    // A piece that cannot be read: whichever rank comes to it.
    let index = workplace.read("data/augmented_train.jsonl").replace("bach_00", "bach_none");
    workplace.write("data/augmented_train.jsonl", &index);
    let ran = workplace.run(&["tiny.yaml", "--only", "pretrain", "--nproc", "2"]);
    assert_eq!(ran.code(), 1);
    assert!(ran.stderr().contains("bach_none"), "{}", ran.stderr());
}

#[test]
fn contradictions_are_errors_of_usage() {
    let workplace = Workplace::new();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = workplace.command(arguments).envs(variables.iter().copied()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let torchrun =
        [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")];
    let (code, told) = run(&["tiny.yaml", "--nproc", "2"], &torchrun);
    assert!(code == 2 && told.contains("--nproc 2: the environment has 2 processes already"), "{code} {told}");
    let (code, told) = run(&["tiny.yaml"], &torchrun[..1]);
    assert!(code == 2 && told.contains("RANK is set and WORLD_SIZE is not"), "{code} {told}");
    let (code, told) = run(&["tiny.yaml", "--nproc", "0"], &[]);
    assert!(code == 2 && told.contains("--nproc 0"), "{code} {told}");
    let (code, told) = run(&["tiny.yaml", "--nproc", "2"], &[("NOTAGEN_TRAIN_TIMEOUT", "soon")]);
    assert!(code == 2 && told.contains("NOTAGEN_TRAIN_TIMEOUT=soon"), "{code} {told}");
}
