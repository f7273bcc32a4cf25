//! A recipe on several processes: the same result, and what happens when one of them does not go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{
    Ran, Workplace,
    hub::{Behaviour, LocalHub, isolated},
};
use rustix::process::{Pid, Signal, kill_process};

/// What takes longer hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// Trains for a while, without anything random that depends on the number of processes.
const LONG: [&str; 11] = [
    "tiny.yaml",
    "--until",
    "pretrain",
    "--set",
    "model.dropout=0",
    "--set",
    "pretrain.epochs=80",
    "--set",
    "pretrain.checkpoint_every=7",
    "--nproc",
    "2",
];

fn start(workplace: &Workplace, more: &[&str], timeout: u32) -> Child {
    let mut command = workplace.command(&LONG);
    command.args(more).env("NOTAGEN_TRAIN_TIMEOUT", timeout.to_string());
    command.stdout(Stdio::null()).stderr(fs::File::create(workplace.path("stderr")).unwrap()).spawn().unwrap()
}

/// The process of a rank that a supervisor has started.
fn worker(supervisor: &Child, rank: usize) -> Pid {
    let rank = format!("RANK={rank}");
    let is = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{}", supervisor.id()))
            && variables.split(|&byte| byte == 0).any(|variable| variable == rank.as_bytes())
    };
    let begun = Instant::now();
    loop {
        let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        if let Some(pid) = names.filter(|name| is(name)).find_map(|name| Pid::from_raw(name.parse().ok()?)) {
            return pid;
        }
        assert!(begun.elapsed() < LONGEST, "there is no {rank}");
        thread::sleep(Duration::from_millis(5));
    }
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
        assert!(begun.elapsed() < LONGEST, "{}", workplace.read("stderr"));
        thread::sleep(Duration::from_millis(5));
    }
}

/// How a run ended.
fn end(mut run: Child) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = run.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if begun.elapsed() > LONGEST {
            run.kill().unwrap();
            panic!("it hangs");
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
        let run = start(&killed, &more, 300);
        let worker = worker(&run, 1);
        at_step(&killed, 10);
        kill_process(worker, Signal::KILL).unwrap();
        assert_eq!(end(run), code, "{}", killed.read("stderr"));
        assert!(killed.read("stderr").contains("rank 1 was killed by signal 9"), "{}", killed.read("stderr"));
        killed.good(&LONG);
        assert!(best(&killed) == best(&whole), "{more:?}: other weights");
    }
}

#[test]
fn a_rank_that_hangs_is_named_within_the_time_out() {
    let workplace = Workplace::new();
    let run = start(&workplace, &[], 20);
    let worker = worker(&run, 1);
    at_step(&workplace, 10);
    kill_process(worker, Signal::STOP).unwrap();
    let begun = Instant::now();
    assert_eq!(end(run), 1, "{}", workplace.read("stderr"));
    println!("ended after {:.1} s", begun.elapsed().as_secs_f64());
    let told = workplace.read("stderr");
    assert!(told.contains("rank 1 ended or hangs: no sign of life"), "{told}");
    assert!(told.contains("error: rank 1 hung, and was killed"), "{told}");
}

#[test]
fn sigterm_saves_once_and_one_process_goes_on() {
    let workplace = Workplace::new();
    let run = start(&workplace, &[], 300);
    at_step(&workplace, 10);
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(end(run), 75, "{}", workplace.read("stderr"));
    let told = workplace.read("stderr");
    assert_eq!(told.matches("interrupted: ").count(), 1, "{told}");
    let alone: Vec<&str> = LONG[..9].to_vec();
    workplace.good(&alone);
    assert_eq!(workplace.json("runs/tiny/summary.json")["stages"][1]["status"], "done");
}

#[test]
fn sigterm_before_the_workers_start_leaves_with_75() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--only", "preprocess"]);
    // A hub that wants to be asked later.
    let hub = LocalHub::new(Behaviour { refusals: vec![(503, "Retry-After: 300"); 9], ..Behaviour::default() });
    let mut command = workplace.command(&["tiny.yaml", "--only", "finetune", "--set", "finetune.init=hf://a/b/c.pth"]);
    isolated(&mut command, &workplace, &hub.endpoint());
    let mut run = command.args(["--nproc", "2"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("again in 300")).unwrap().unwrap();
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(end(run), 75);
}

#[test]
fn a_worker_whose_supervisor_died_before_it_listened_leaves() {
    let workplace = Workplace::new();
    let mut command = workplace.command(&["tiny.yaml"]);
    // Where nobody answers: it does not come to asking.
    let place = [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "127.0.0.1")];
    let supervisor = (std::process::id() + 1).to_string();
    command.envs(place).envs([("MASTER_PORT", "1"), ("NOTAGEN_TRAIN_SUPERVISOR", &supervisor)]);
    let ran = Ran(command.output().unwrap());
    assert_eq!(ran.code(), 75, "{}", ran.stderr());
    assert!(ran.stderr().contains("which started this one, is gone"), "{}", ran.stderr());
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
fn torchrun_starts_the_processes_as_well() {
    let workplace = Workplace::new();
    let mut torchrun = Command::new("python3");
    torchrun.args(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]);
    torchrun.args([env!("CARGO_BIN_EXE_notagen-train"), "tiny.yaml", "--until", "pretrain"]);
    torchrun.env("PYTHONPATH", common::root().join(".tools/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = torchrun.env("OMP_NUM_THREADS", "1").current_dir(workplace.path("")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(workplace.json("runs/tiny/summary.json")["stages"][1]["status"], "done");
    // Two processes exchange gradients.
    assert!(workplace.read("runs/tiny/02-pretrain/metrics.jsonl").contains(r#""event":"exchange""#));
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
    let (code, told) = run(&["tiny.yaml"], &[("NOTAGEN_TRAIN_TIMEOUT", "soon")]);
    assert!(code == 2 && told.contains("NOTAGEN_TRAIN_TIMEOUT=soon"), "{code} {told}");
    // Without scores nothing would be started.
    let (code, told) = run(&["tiny.yaml", "--nproc", "100000", "--set", "preprocess.scores=none"], &[]);
    assert!(code == 2 && told.contains("--nproc 100000: this machine has"), "{code} {told}");
}
