//! What a run has come to: the table at its end, and `summary.json`.
use serde_json::{Value, json};

use crate::{
    plan::Plan,
    progress::duration,
    state::{Record, State, Status},
    table,
};

/// The contents of `summary.json`.
pub fn of(plan: &Plan, state: &State) -> Value {
    let stages: Vec<Value> = plan
        .stages
        .iter()
        .map(|planned| {
            let record = state.stages.get(&planned.name);
            json!({
                "stage": planned.name,
                "kind": planned.stage.kind(),
                "status": record.map(|record| record.status),
                "seconds": record.map(|record| record.seconds),
                "folder": plan.stage_folder(planned),
                "result": record.map(|record| &record.result),
                "error": record.and_then(|record| record.error.as_ref()),
            })
        })
        .collect();
    let done = stages.iter().all(|stage| stage["status"] == json!(Status::Done));
    json!({ "run": plan.recipe.name, "done": done, "stages": stages })
}

/// The same for people.
pub fn table(plan: &Plan, state: &State) -> String {
    let heading = ["stage", "status", "eval loss", "steps", "time", "result"];
    let mut rows: Vec<Vec<String>> = vec![heading.map(str::to_owned).to_vec()];
    for planned in &plan.stages {
        let Some(record) = state.stages.get(&planned.name) else {
            let status = if planned.selected { planned.standing.word() } else { "not run" };
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
    table::render(&rows)
}

fn result(record: &Record) -> String {
    let facts = &record.result.facts;
    let count = |key: &str| facts.get(key).and_then(Value::as_u64);
    if record.status != Status::Done {
        return record.error.clone().unwrap_or_default();
    }
    let outputs = record.result.published.as_ref().or(record.result.files.first());
    let place = outputs.map(|path| path.display().to_string()).unwrap_or_default();
    match (count("pieces"), facts.get("aligned").and_then(Value::as_f64)) {
        (Some(pieces), Some(aligned)) => {
            format!("{pieces} pieces, {:.0} % pass the alignment check: {place}", aligned * 100.0)
        }
        (Some(pieces), None) => format!("{pieces} pieces: {place}"),
        _ => place,
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Interrupted => "interrupted",
        Status::Failed => "failed",
        Status::Done => "done",
    }
}
