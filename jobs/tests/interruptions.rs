//! A run that is killed or stopped goes on to the same weights, bit for bit.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::Workplace;

const LONG: [&str; 11] = [
    "tiny.yaml",
    "--until",
    "finetune",
    "--set",
    "pretrain.epochs=16",
    "--set",
    "finetune.steps=40",
    "--set",
    "finetune.evaluate_every=7",
    "--set",
    "pretrain.checkpoint_every=3",
];

/// Weights and optimizer at the best evaluation of both stages, and the last weights.
fn results(workplace: &Workplace) -> Vec<Vec<u8>> {
    let mut results = Vec::new();
    for stage in ["02-pretrain", "03-finetune"] {
        let checkpoints = workplace.path(&format!("runs/tiny/{stage}/checkpoints"));
        results.push(std::fs::read(checkpoints.join("best.pth")).unwrap());
        let entries = std::fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path());
        let last = entries.filter(|path| path.to_string_lossy().contains("/step_")).max().unwrap();
        let output = workplace.path("last.pth").display().to_string();
        workplace.good(&["weights", "export", &last.display().to_string(), "--output", &output]);
        results.push(std::fs::read(&output).unwrap());
    }
    results
}

fn start(workplace: &Workplace, fresh: bool) -> Child {
    let mut command = workplace.command(&LONG);
    if fresh {
        command.arg("--fresh");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A moment up to `longest`, different every time.
fn moment(longest: Duration) -> Duration {
    let portion = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    longest.mul_f64(portion)
}

#[test]
fn killed_twenty_times_a_run_ends_in_the_same_weights() {
    let whole = Workplace::new();
    let begun = Instant::now();
    whole.good(&LONG);
    let longest = begun.elapsed() / 3;

    let killed = Workplace::new();
    let (mut kills, mut moments, mut fresh) = (0, Vec::new(), false);
    while kills < 20 {
        let mut run = start(&killed, fresh);
        let wait = moment(longest);
        thread::sleep(wait);
        fresh = run.try_wait().unwrap().is_some_and(|status| {
            assert!(status.success(), "after kills at {moments:?}");
            true
        });
        if !fresh {
            run.kill().unwrap();
            run.wait().unwrap();
            kills += 1;
            moments.push(wait);
        }
    }
    killed.good(&LONG);
    for (number, (one, other)) in results(&whole).iter().zip(&results(&killed)).enumerate() {
        assert!(one == other, "result {number} differs after kills at {moments:?}");
    }
    let losses =
        |workplace: &Workplace| workplace.json("runs/tiny/summary.json")["stages"][2]["result"]["eval_loss"].clone();
    assert_eq!(losses(&whole), losses(&killed));
}

#[test]
fn a_signal_saves_leaves_with_75_and_the_next_run_goes_on() {
    let whole = Workplace::new();
    whole.good(&LONG);
    for signal in ["TERM", "USR1", "INT"] {
        let stopped = Workplace::new();
        let run = stopped.command(&LONG).stderr(Stdio::piped()).spawn().unwrap();
        let metrics = stopped.path("runs/tiny/02-pretrain/metrics.jsonl");
        let begun = Instant::now();
        while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 5) {
            assert!(begun.elapsed() < Duration::from_secs(100), "no step was taken");
            thread::sleep(Duration::from_millis(10));
        }
        Command::new("kill").args([&format!("-{signal}"), &run.id().to_string()]).status().unwrap();
        let output = run.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{signal}: {text}");
        assert!(text.contains("stage pretrain was stopped by a signal; all is saved"), "{text}");
        assert_eq!(stopped.json("runs/tiny/state.json")["stages"]["pretrain"]["status"], "interrupted");
        let next = stopped.good(&LONG);
        assert!(next.stderr().contains("pretrain: unfinished, goes on from its last checkpoint"), "{}", next.stderr());
        assert!(next.stderr().contains("goes on after step"), "{}", next.stderr());
        assert!(results(&whole) == results(&stopped), "{signal}");
    }
}
