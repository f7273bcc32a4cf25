//! What a run has come to: the table at its end, and `summary.json`.
use serde_json::{Value, json};

use crate::common::progress::duration;
use crate::common::table;
use crate::plan::Plan;
use crate::plan::state::{Record, RecordStatus, RunState};
use crate::recipe::{Stage, rounds};

/// The contents of `summary.json`: the stages as the recipe has them, one that comes in parts with its parts.
pub fn of(plan: &Plan, state: &RunState) -> Value {
    let mut stages: Vec<Value> = Vec::new();
    for planned in &plan.stages {
        let record = state.stages.get(&planned.name);
        let object = json!({
            "stage": planned.name,
            "kind": planned.stage.kind(),
            "status": record.map(|record| record.status),
            "seconds": record.map(|record| record.seconds),
            "folder": plan.stage_folder(planned),
            "result": record.map(|record| &record.result),
            "error": record.and_then(|record| record.error.as_ref()),
        });
        match group(&planned.name) {
            None => stages.push(object),
            Some(name) => {
                if stages.last().is_none_or(|last| last["stage"] != name) {
                    stages.push(json!({ "stage": name, "kind": "rl", "parts": [] }));
                }
                if let Some(Value::Array(parts)) = stages.last_mut().and_then(|last| last.get_mut("parts")) {
                    parts.push(object);
                }
            }
        }
    }
    for stage in stages.iter_mut().filter(|stage| stage.get("parts").is_some()) {
        complete(stage);
    }
    let done = stages.iter().all(|stage| stage["status"] == json!(RecordStatus::Done));
    json!({ "run": plan.recipe.name, "done": done, "stages": stages })
}

/// What the parts of a stage come to together.
fn complete(stage: &mut Value) {
    let parts = stage["parts"].as_array().cloned().unwrap_or_default();
    let unlike = parts.iter().map(|part| &part["status"]).find(|status| **status != json!(RecordStatus::Done));
    stage["status"] = unlike.cloned().unwrap_or_else(|| json!(RecordStatus::Done));
    stage["seconds"] = parts.iter().filter_map(|part| part["seconds"].as_f64()).sum::<f64>().into();
    let of_kind = |kind: &'static str| parts.iter().filter(move |part| part["kind"] == kind);
    let scores: Vec<Value> = of_kind("score")
        .filter(|part| part["status"] == json!(RecordStatus::Done))
        .map(|part| json!({ "round": part["result"]["round"], "average_clamp2_score": part["result"]["average_clamp2_score"] }))
        .collect();
    let weights = of_kind("dpo").next_back().map_or(&Value::Null, |part| &part["result"]["weights"]);
    stage["result"] = json!({ "scores": scores, "weights": weights });
}

/// The stage that a part belongs to.
fn group(name: &str) -> Option<&str> {
    rounds::part_of(name).map(|(stage, ..)| stage)
}

/// The same for people.
pub fn table(plan: &Plan, state: &RunState) -> String {
    let mut text = table::render(&stages(plan, state));
    for stage in rl_stages(plan) {
        let rows = scores(plan, state, stage);
        if rows.len() > 1 {
            text.push_str(&format!("\n{stage}\n{}", table::render(&rows)));
        }
    }
    text
}

/// The stages that come in rounds.
pub fn rl_stages(plan: &Plan) -> Vec<&str> {
    let mut stages: Vec<&str> = plan.stages.iter().filter_map(|planned| group(&planned.name)).collect();
    stages.dedup();
    stages
}

/// The stages, behind a heading.
pub fn stages(plan: &Plan, state: &RunState) -> Vec<Vec<String>> {
    let heading = ["stage", "status", "eval loss", "steps", "time", "result"];
    let mut rows: Vec<Vec<String>> = vec![heading.map(str::to_owned).to_vec()];
    for planned in &plan.stages {
        let Some(record) = state.stages.get(&planned.name) else {
            let status = if planned.selected { planned.status.word() } else { "not run" };
            rows.push(vec![planned.name.clone(), status.to_owned()]);
            continue;
        };
        let fact = |key: &str| record.result.facts.get(key);
        rows.push(vec![
            planned.name.clone(),
            word(record.status).to_owned(),
            fact("eval_loss").and_then(Value::as_f64).map_or_else(String::new, |loss| format!("{loss:.4}")),
            fact("steps").map_or_else(String::new, Value::to_string),
            duration(record.seconds),
            result(record),
        ]);
    }
    let seconds: f64 = plan.stages.iter().filter_map(|planned| Some(state.stages.get(&planned.name)?.seconds)).sum();
    rows.push(["in all", "", "", "", &duration(seconds)].map(str::to_owned).to_vec());
    rows
}

/// Round by round, behind a heading: the score of an rl stage's pieces, and whether they keep their form.
pub fn scores(plan: &Plan, state: &RunState, of: &str) -> Vec<Vec<String>> {
    let fact =
        |stage: &str, key: &str| state.stages.get(stage).and_then(|record| record.result.facts.get(key)).cloned();
    let float = |stage: &str, key: &str| fact(stage, key).and_then(|value| value.as_f64());
    let heading = ["rounds of DPO", "average CLaMP 2 score", "aligned", "patches a piece", "chosen"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for planned in &plan.stages {
        let (Stage::Score(score), Some((stage, round, _))) = (&planned.stage, rounds::part_of(&planned.name)) else {
            continue;
        };
        if stage != of {
            continue;
        }
        let Some(average) = float(&planned.name, "average_clamp2_score") else { continue };
        let part = |part: &str| format!("{stage}.{round}.{part}");
        let written = part("generate");
        let aligned = float(&written, "aligned").map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
        let length = float(&written, "patches").zip(float(&written, "pieces"));
        let chosen = fact(&part("prefer"), "chosen").zip(fact(&part("prefer"), "wanted"));
        rows.push(vec![
            score.round.unwrap_or(0).to_string(),
            format!("{average:.4}"),
            aligned,
            length.map_or_else(String::new, |(patches, pieces)| format!("{:.0}", patches / pieces.max(1.0))),
            chosen.map_or_else(String::new, |(chosen, wanted)| format!("{chosen} of {wanted} wanted")),
        ]);
    }
    rows
}

fn result(record: &Record) -> String {
    let facts = &record.result.facts;
    let count = |key: &str| facts.get(key).and_then(Value::as_u64);
    if record.status != RecordStatus::Done {
        return record.error.clone().unwrap_or_default();
    }
    let outputs = record.result.published.as_ref().or(record.result.files.first());
    let place = outputs.map(|path| path.display().to_string()).unwrap_or_default();
    if let Some(score) = facts.get("average_clamp2_score").and_then(Value::as_f64) {
        return format!("average CLaMP 2 score {score:.4}: {place}");
    }
    if let (Some(chosen), Some(wanted)) = (count("chosen"), count("wanted")) {
        return format!("{chosen} of {wanted} wanted: {place}");
    }
    match (count("pieces"), facts.get("aligned").and_then(Value::as_f64)) {
        (Some(pieces), Some(aligned)) => {
            format!("{pieces} pieces, {:.0} % pass the alignment check: {place}", aligned * 100.0)
        }
        (Some(pieces), None) => format!("{pieces} pieces: {place}"),
        _ => place,
    }
}

fn word(status: RecordStatus) -> &'static str {
    match status {
        RecordStatus::Running => "running",
        RecordStatus::Interrupted => "interrupted",
        RecordStatus::Failed => "failed",
        RecordStatus::Done => "done",
    }
}
