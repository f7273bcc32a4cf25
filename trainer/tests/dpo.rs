//! CLaMP-DPO from preference file to weights: interruptions, precisions, what is told and what is refused.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::settings;
use model::{Architecture, NotaGen};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;
use trainer::{DpoParams, DpoReport, Dtype, Observer, Outcome, Settings, TrainEvent, dpo};

/// libtorch has one generator for the whole process, and dropout draws from it: one training at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The reference: the same every time.
fn network(dropout: f64) -> NotaGen {
    NotaGen::new(&Architecture { dropout, ..Architecture::sized(32, 1, 1, 64) }, Device::Cpu, 3).unwrap()
}

/// Three chosen and two rejected pieces, the first of each longer than the context.
fn preferences(folder: &Path) -> PathBuf {
    let piece = |note: char, lines: usize| -> String {
        let line = |i| format!("[r:{i}/{}][V:1]{}|[V:2]{note}8|\n", lines - i - 1, String::from(note).repeat(8));
        "L:1/8\nK:C\nV:1\nV:2\n".to_owned() + &(0..lines).map(line).collect::<String>()
    };
    let write = |name: &str, lengths: &[usize], notes: &str| -> Vec<PathBuf> {
        let files = lengths.iter().zip(notes.chars()).map(|(&lines, note)| {
            let path = folder.join(format!("{name}_{note}.abc"));
            std::fs::write(&path, piece(note, lines)).unwrap();
            path
        });
        files.collect()
    };
    let lists = serde_json::json!({
        "chosen": write("chosen", &[12, 3, 4], "CDE"),
        "rejected": write("rejected", &[11, 2], "fg"),
    });
    let path = folder.join("preferences.json");
    std::fs::write(&path, lists.to_string()).unwrap();
    path
}

fn eight_steps(precision: Dtype) -> Settings {
    Settings {
        learning_rate: 1e-3,
        batch_size: 4,
        accumulation_steps: 2,
        steps: Some(8),
        warmup_steps: 0,
        max_grad_norm: Some(1.0),
        checkpoint_every: 2,
        log_every: 3,
        ..settings(precision)
    }
}

/// Sets the stop flag at one of the events, and remembers all.
struct Watch<'a> {
    stop: &'a AtomicBool,
    at: Option<usize>,
    events: Vec<TrainEvent>,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &TrainEvent) {
        if self.at == Some(self.events.len()) {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.events.push(event.clone());
    }
}

struct Run {
    folder: tempfile::TempDir,
    settings: Settings,
    dpo: DpoParams,
    dropout: f64,
}

impl Run {
    fn new(settings: Settings, dropout: f64) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let preferences = preferences(folder.path());
        let dpo = DpoParams { preferences, beta: 0.1, lambda: 10.0, dropout: true };
        Run { folder, settings, dpo, dropout }
    }

    fn stage(&self) -> PathBuf {
        self.folder.path().join("stage")
    }

    /// Stopped at an event, or to the end.
    fn go(&self, at: Option<usize>) -> (trainer::Result<Outcome<DpoReport>>, Vec<TrainEvent>) {
        let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let stop = AtomicBool::new(false);
        let mut watch = Watch { stop: &stop, at, events: Vec::new() };
        std::fs::create_dir_all(self.stage()).unwrap();
        let model = network(self.dropout);
        let outcome = dpo::train(&self.settings, &self.dpo, &model, &self.stage(), &stop, &mut watch);
        (outcome, watch.events)
    }

    fn finish(&self) -> (DpoReport, Vec<TrainEvent>) {
        match self.go(None) {
            (Ok(Outcome::Finished(report)), events) => (report, events),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// The weights, and what was logged about the steps, without what clocks and memory say.
    fn results(&self) -> (Vec<u8>, Vec<Value>) {
        let weights = std::fs::read(self.stage().join("checkpoints/best.pth")).unwrap();
        let text = std::fs::read_to_string(self.stage().join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut steps: Vec<Value> = lines.filter(|line| line["event"] == "step").collect();
        for step in &mut steps {
            for clock in
                ["seconds", "patches_per_second", "tokens_per_second", "mfu", "data_wait", "memory", "memory_peak"]
            {
                step.as_object_mut().unwrap().remove(clock);
            }
        }
        (weights, steps)
    }
}

#[test]
fn stopped_at_any_event_it_goes_on_to_the_same_weights() {
    let whole = Run::new(eight_steps(Dtype::Fp32), 0.1);
    let (report, events) = whole.finish();
    let (weights, steps) = whole.results();
    assert_eq!(steps.iter().map(|step| step["step"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 6, 8]);
    let references = events.iter().filter(|event| matches!(event, TrainEvent::Reference { .. })).count();
    assert!(references >= 3, "{references} batches of the reference");
    for (at, event) in events.iter().enumerate() {
        let stopped = Run::new(eight_steps(Dtype::Fp32), 0.1);
        let (outcome, _) = stopped.go(Some(at));
        if !matches!(event, TrainEvent::Checkpoint { step: 8, .. }) {
            assert!(matches!(outcome, Ok(Outcome::Interrupted)), "{:?}: {outcome:?}", event);
        }
        let (again, _) = stopped.finish();
        let (weights_again, steps_again) = stopped.results();
        assert!(weights_again == weights, "other weights when stopped at {:?}", event);
        assert_eq!(steps_again, steps, "stopped at {:?}", event);
        let same = |report: &DpoReport| DpoReport {
            seconds: 0.0,
            best: PathBuf::new(),
            last: PathBuf::new(),
            ..report.clone()
        };
        assert_eq!(same(&again), same(&report));
    }
}

#[test]
fn a_reference_that_is_lost_broken_or_anothers_is_computed_again() {
    let whole = Run::new(eight_steps(Dtype::Fp32), 0.1);
    whole.finish();
    let expected = whole.results();
    let good = std::fs::read_to_string(whole.stage().join("reference.json")).unwrap();
    let of_another = good.replacen("\"fingerprint\":\"", "\"fingerprint\":\"0", 1).replace("-1", "-2");
    for content in [None, Some(&good[..good.len() / 2]), Some(of_another.as_str())] {
        let run = Run::new(eight_steps(Dtype::Fp32), 0.1);
        // After the checkpoint of step 4.
        let (_, events) = run.go(None);
        let at = events.iter().position(|event| matches!(event, TrainEvent::Checkpoint { step: 4, .. })).unwrap();
        let run = Run::new(eight_steps(Dtype::Fp32), 0.1);
        assert!(matches!(run.go(Some(at)).0, Ok(Outcome::Interrupted)));
        let path = run.stage().join("reference.json");
        match content {
            None => std::fs::remove_file(&path).unwrap(),
            Some(content) => std::fs::write(&path, content).unwrap(),
        }
        let (_, events) = run.finish();
        assert!(events.iter().any(|event| matches!(event, TrainEvent::Reference { .. })));
        assert!(run.results() == expected);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), good);
    }
}

#[test]
fn it_learns_to_prefer_in_every_precision_and_says_how() {
    for precision in [Dtype::Fp32, Dtype::Bf16, Dtype::Fp16] {
        let run = Run::new(Settings { steps: Some(30), log_every: 1, ..eight_steps(precision) }, 0.0);
        let (report, events) = run.finish();
        // In half precision the first steps overflow and are skipped.
        let counted = |event: &&TrainEvent| matches!(event, TrainEvent::Step { values, .. } if !values.is_empty());
        let Some(TrainEvent::Step { loss, values, .. }) = events.iter().find(counted) else { panic!("no step") };
        assert!((loss - 2f64.ln()).abs() < 0.1, "{precision:?}: the first loss is {loss}");
        let names: Vec<&str> = values.keys().map(String::as_str).collect();
        let all = [
            "accuracy",
            "chosen_change",
            "chosen_logp",
            "kl",
            "lambda_share",
            "margin",
            "rejected_change",
            "rejected_logp",
        ];
        assert_eq!(names, all);
        assert_eq!((report.accuracy, report.chosen, report.rejected), (1.0, 3, 2), "{precision:?}: {report:?}");
        assert!(report.loss < 0.3 && report.margin > 1.0, "{precision:?}: {report:?}");
        assert!(report.chosen_logp_end > report.chosen_logp_start - 1.0, "{precision:?}: {report:?}");
        assert!(report.rejected_logp_end < report.rejected_logp_start, "{precision:?}: {report:?}");
        let (_, steps) = run.results();
        assert!(steps[29]["accuracy"].is_number() && steps[29]["loss"].is_number());
    }
}

#[test]
fn the_weights_are_the_originals_layout_and_load() {
    let run = Run::new(eight_steps(Dtype::Fp32), 0.0);
    let (report, _) = run.finish();
    // Networks draw their first weights from the generator too.
    let _alone = ALONE.lock();
    let checkpoint = model::weights::Checkpoint::open(&report.best).unwrap();
    assert_eq!(checkpoint.rest().iter().count(), 0);
    assert_eq!(checkpoint.state().len(), network(0.0).state_dict().len());
    model::weights::load(&report.best, Device::Cpu).unwrap();
}

#[test]
fn what_cannot_work_is_refused_before_the_reference_is_computed() {
    let refused = |change: &dyn Fn(&mut Run)| {
        let mut run = Run::new(eight_steps(Dtype::Fp32), 0.0);
        change(&mut run);
        let (outcome, events) = run.go(None);
        assert!(events.is_empty());
        outcome.unwrap_err().to_string()
    };
    assert!(refused(&|run| (run.settings.steps, run.settings.epochs) = (None, Some(1))).contains("steps"));
    assert_eq!(refused(&|run| run.dpo.beta = 0.0), "beta is not above 0");
    assert_eq!(refused(&|run| run.dpo.lambda = f64::NAN), "lambda is below 0");
    let error = refused(&|run| std::fs::remove_file(run.folder.path().join("rejected_g.abc")).unwrap());
    assert!(error.contains("preferences.json: rejected[1], ") && error.contains("rejected_g.abc: No such"), "{error}");
}
