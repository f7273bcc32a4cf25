//! `report.html`: what a run was, where its results come from, and what it came to, on one page that needs no other file.
mod chart;
mod curves;
mod scores;
mod style;

use std::fs;
use std::path::{Path, PathBuf};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::files;
use crate::common::progress::{bytes, clock, duration, metric};
use crate::plan::Plan;
use crate::plan::state::{Record, RecordStatus, RunState, now};
use crate::recipe::{Stage, rounds};
use crate::run::{provenance, summary};
use chart::{Mark, Series, exact, number};
use curves::{Curves, Line};
use scores::Score;

/// Pieces of the last stage that wrote some.
const PIECES: usize = 8;
/// Times that a training wrote pieces to listen to, the first and the last among them.
const TIMES: usize = 4;
/// A cell of more characters than this may be broken into lines.
const LONG: usize = 24;
/// Warnings of a run that the page shows.
const WARNINGS: usize = 40;

/// Writes the page into the run's folder.
///
/// # Errors
/// The file cannot be written, or an input cannot be read again.
pub fn write(plan: &Plan, state: &RunState, digests: &mut Digests) -> Result<PathBuf> {
    let path = plan.folder.join("report.html");
    let page = page(plan, state, digests)?.into_string();
    files::save(&path, page)?;
    Ok(path)
}

fn page(plan: &Plan, state: &RunState, digests: &mut Digests) -> Result<Markup> {
    let sessions = provenance::sessions(&plan.folder);
    let warnings = warnings(plan, state);
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (plan.recipe.name) " · notagen-train" }
                style { (PreEscaped(style::CSS)) }
            }
            body {
                header {
                    p.small { "notagen-train · report of a run" }
                    h1 { (plan.recipe.name) }
                    (headline(plan, state))
                }
                main {
                    @if !warnings.is_empty() {
                        section.warnings {
                            h2 { "Warnings" }
                            ul { @for (stage, text) in warnings.iter().take(WARNINGS) { li { b { (stage) } " " (text) } } }
                            @if warnings.len() > WARNINGS {
                                p.small { (warnings.len() - WARNINGS) " more in the logs of the stages" }
                            }
                        }
                    }
                    section { h2 { "Stages" } (stages(plan, state)) }
                    (rl(plan, state))
                    (trainings(plan, state))
                    (pieces(plan, state))
                    section { h2 { "Provenance" } (where_from(plan, state, &sessions, digests)?) }
                    section {
                        h2 { "Settings" }
                        details { summary { "The recipe, every default filled in" } pre { (recipe(plan)) } }
                    }
                }
                footer { p.small { "written " (clock(now())) } }
            }
        }
    })
}

/// The numbers that a reader wants first.
fn headline(plan: &Plan, state: &RunState) -> Markup {
    let records = || plan.stages.iter().filter_map(|stage| state.stages.get(&stage.name));
    let done = records().filter(|record| record.status == RecordStatus::Done).count();
    let began = records().map(|record| record.started).min();
    let ended = records().filter_map(|record| record.finished).max();
    let seconds: f64 = records().map(|record| record.seconds).sum();
    let last_score = plan.stages.iter().rev().find_map(|stage| match &stage.stage {
        Stage::Score(_) => state.stages.get(&stage.name)?.result.facts.get("average_clamp2_score")?.as_f64(),
        _ => None,
    });
    let last_loss = plan.stages.iter().rev().find_map(|stage| {
        stage.stage.training()?;
        state.stages.get(&stage.name)?.result.facts.get("eval_loss")?.as_f64()
    });
    html! {
        dl.headline {
            div { dt { "stages done" } dd { (done) " of " (plan.stages.len()) } }
            div { dt { "time of work" } dd { (duration(seconds)) } }
            @if let Some(loss) = last_loss { div { dt { "best eval loss of the last training" } dd { (format!("{loss:.4}")) } } }
            @if let Some(score) = last_score { div { dt { "last average CLaMP 2 score" } dd { (format!("{score:.4}")) } } }
            @if let Some(architecture) = &plan.architecture {
                div { dt { "parameters" } dd { (metric(architecture.parameter_count() as f64)) } }
            }
        }
        p.small {
            @if let Some(began) = began { "begun " (clock(began)) }
            @if let Some(ended) = ended { ", last worked on " (clock(ended)) }
        }
    }
}

/// A table, its first row the heading.
fn table(rows: &[Vec<String>]) -> Markup {
    let Some((heading, rows)) = rows.split_first() else { return html! {} };
    html! {
        div.wide {
            table {
                thead { tr { @for cell in heading { th { (cell) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for column in 0..heading.len() {
                                @let cell = row.get(column).map_or("", String::as_str);
                                td.long[cell.len() > LONG] data-label=(heading[column]) { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What became of the stages; the parts of rounds are many, and told apart.
fn stages(plan: &Plan, state: &RunState) -> Markup {
    let mut rows = summary::stages(plan, state).into_iter();
    let heading: Vec<Vec<String>> = rows.next().into_iter().collect();
    let is_part = |row: &Vec<String>| row.first().is_some_and(|name| rounds::part_of(name).is_some());
    let (parts, whole): (Vec<_>, Vec<_>) = rows.partition(is_part);
    html! {
        (table(&[heading.clone(), whole].concat()))
        @if !parts.is_empty() {
            details {
                summary { "The " (parts.len()) " parts of the rounds of reinforcement learning" }
                (table(&[heading, parts].concat()))
            }
        }
    }
}

/// Every line of the stages' logs that warns.
fn warnings(plan: &Plan, state: &RunState) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for stage in plan.stages.iter().filter(|stage| state.stages.contains_key(&stage.name)) {
        let log = fs::read_to_string(plan.stage_folder(stage).join("log.txt")).unwrap_or_default();
        for line in log.lines() {
            if let Some((_, text)) = line.split_once(" warning: ") {
                found.push((stage.name.clone(), text.to_owned()));
            }
        }
    }
    found
}

/// The scores of the rounds, as a curve and as a table.
fn rl(plan: &Plan, state: &RunState) -> Markup {
    html! {
        @for stage in summary::rl_stages(plan) {
            @let rows = summary::scores(plan, state, stage);
            @if rows.len() > 1 {
                @let averages = averages(plan, state, stage);
                section {
                    h2 { "Reinforcement learning: " (stage) }
                    div.charts {
                        (chart::lines(
                            "average CLaMP 2 score",
                            "rounds of DPO",
                            &[Series { name: "average", class: "two", line: &averages, dots: true }],
                            None,
                        ))
                    }
                    (table(&rows))
                }
            }
        }
    }
}

fn averages(plan: &Plan, state: &RunState, of: &str) -> Line {
    let mut line = Line::new();
    for planned in &plan.stages {
        if let (Stage::Score(score), Some((stage, ..))) = (&planned.stage, rounds::part_of(&planned.name))
            && stage == of
            && let Some(record) = state.stages.get(&planned.name)
            && let Some(average) = record.result.facts.get("average_clamp2_score").and_then(Value::as_f64)
        {
            line.push((score.round.unwrap_or(0) as f64, average));
        }
    }
    line
}

/// The curves of every stage that trained.
fn trainings(plan: &Plan, state: &RunState) -> Markup {
    let trained = plan.stages.iter().filter(|stage| state.stages.contains_key(&stage.name));
    let trained: Vec<_> = trained.filter_map(|stage| Some((stage, Curves::read(&plan.stage_folder(stage))?))).collect();
    html! {
        @for (stage, curves) in &trained {
            section {
                h2 { (stage.name) }
                @if let Some(best) = curves.best {
                    p { "Best eval loss " b { (format!("{:.4}", best.loss)) } " in epoch " (best.epoch) ", step " (number(best.step)) "." }
                }
                div.charts {
                    (loss(curves, if matches!(stage.stage, Stage::Dpo(_)) { "loss" } else { "loss, nats a character" }))
                    @for (name, line) in &curves.others {
                        (chart::lines(
                            &name.replace('_', " "),
                            "steps",
                            &[Series { name, class: "one", line, dots: false }],
                            None,
                        ))
                    }
                }
            }
        }
    }
}

fn loss(curves: &Curves, title: &str) -> Markup {
    let mut series = vec![Series { name: "training", class: "one", line: &curves.train_loss, dots: false }];
    if !curves.eval_loss.is_empty() {
        let dots = curves.eval_loss.len() <= 60;
        series.push(Series { name: "evaluation", class: "two", line: &curves.eval_loss, dots });
    }
    let mark = curves.best.map(|best| Mark {
        at: (best.step, best.loss),
        text: format!("best: epoch {}, {}", best.epoch, exact(best.loss)),
    });
    chart::lines(title, "steps", &series, mark.as_ref())
}

/// Pieces of the last stage that wrote some, and of the trainings on their way.
fn pieces(plan: &Plan, state: &RunState) -> Markup {
    let written = plan.stages.iter().rev().find_map(|stage| match (&stage.stage, state.stages.get(&stage.name)?) {
        (Stage::Generate(_), Record { status: RecordStatus::Done, result, .. }) => {
            Some((&stage.name, result.files.get(1)?.clone()))
        }
        _ => None,
    });
    let on_the_way: Vec<(&String, Vec<PathBuf>)> = plan
        .stages
        .iter()
        .filter(|stage| state.stages.contains_key(&stage.name))
        .map(|stage| (&stage.name, times(&plan.stage_folder(stage).join("samples"))))
        .filter(|(_, times)| !times.is_empty())
        .collect();
    html! {
        @if let Some((name, folder)) = written {
            section {
                h2 { "Pieces of " (name) }
                @let files = scores::files(&folder, PIECES);
                p.small { "The first " (files.len()) " in " code { (folder.display()) } ", as they came." }
                div.scores { @for score in files.iter().filter_map(|file| Score::read(file)) { (score.card(name)) } }
            }
        }
        @for (name, times) in &on_the_way {
            section {
                h2 { "Pieces written during " (name) }
                p.small { "The first piece each time, always drawn with the same random numbers; all are in the stage's " code { "samples/" } "." }
                div.scores {
                    @for folder in times {
                        @let epoch = folder.file_name().unwrap_or_default().to_string_lossy();
                        @for score in scores::files(folder, 1).iter().filter_map(|file| Score::read(file)) {
                            (score.card(&format!("{name}-{epoch}")))
                        }
                    }
                }
            }
        }
    }
}

/// Folders of pieces by epoch: the first, the last, and some between.
fn times(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    let between = all.len().saturating_sub(1);
    let mut wanted: Vec<usize> = (0..TIMES).map(|time| time * between / (TIMES - 1)).collect();
    wanted.dedup();
    wanted.into_iter().filter_map(|place| all.get(place).cloned()).collect()
}

/// Programs and machines, and the hashes of what went in and came out.
fn where_from(plan: &Plan, state: &RunState, sessions: &[Value], digests: &mut Digests) -> Result<Markup> {
    let text = |value: &Value| value.as_str().map_or_else(|| "unknown".to_owned(), str::to_owned);
    let mut rows = vec![["worked on", "code", "libtorch", "device", "machine"].map(str::to_owned).to_vec()];
    for session in sessions {
        let cpu = &session["cpu"];
        let gpus = session["cuda"]["devices"].as_array().map_or(0, Vec::len);
        rows.push(vec![
            session["started"].as_u64().map(clock).unwrap_or_default(),
            format!("{} ({})", text(&session["version"]), short(&text(&session["code"]))),
            text(&session["libtorch"]["version"]),
            format!(
                "{} × {}{}",
                session["processes"],
                text(&session["device"]),
                session["precision"]["why"].as_str().map_or_else(String::new, |why| format!(
                    "; precision: auto is {} ({why})",
                    text(&session["precision"]["auto"])
                ))
            ),
            format!(
                "{}: {}, {} cores, {} of memory{}; {}",
                text(&session["host"]),
                text(&cpu["model"]),
                cpu["cores"],
                bytes(session["memory"]["total_bytes"].as_u64().unwrap_or(0)),
                if gpus == 0 { String::new() } else { format!(", {gpus} GPUs") },
                text(&session["system"])
            ),
        ]);
    }
    let mut hashes = vec![["what", "file", "SHA-256"].map(str::to_owned).to_vec()];
    hashes.push(vec![
        "the recipe, resolved".to_owned(),
        "recipe.yaml".to_owned(),
        digest(digests, &plan.folder.join("recipe.yaml"))?,
    ]);
    let last = sessions.last();
    if let Some(session) = last {
        hashes.push(vec!["the program".to_owned(), "notagen-train".to_owned(), text(&session["program_sha256"])]);
    }
    for stage in &plan.stages {
        let Some(record) = state.stages.get(&stage.name) else { continue };
        for (input, digest) in &record.fingerprint.inputs {
            let (key, path) = input.split_once(' ').unwrap_or(("", input));
            hashes.push(vec![format!("{key} of {}", stage.name), path.to_owned(), digest.clone()]);
        }
        // Stages that only read weights take down which.
        let makes_weights = stage.stage.makes_weights() || matches!(stage.stage, Stage::M3(_));
        let weights = record.result.published.as_ref().or(record.result.weights.as_ref());
        if let Some(weights) = weights.filter(|_| makes_weights) {
            let what = format!("weights of {}", stage.name);
            hashes.push(vec![what, weights.display().to_string(), digest(digests, weights)?]);
        }
    }
    let command = last
        .and_then(|session| session["command"].as_array())
        .map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    Ok(html! {
        (table(&rows))
        @if let Some(command) = command { p { "Last command: " code { (command) } } }
        details open[hashes.len() < 30] {
            summary { "Data and weights: " (hashes.len() - 1) " hashes" }
            p.small { "Of a folder: of all its files, or of their names, sizes and times where it is large." }
            (table(&hashes))
        }
    })
}

fn digest(digests: &mut Digests, path: &Path) -> Result<String> {
    digests.of(path).map_err(|error| Failure::io("read", path, error))
}

/// The first characters of a commit, and whether the files differed from it.
fn short(commit: &str) -> String {
    match commit.strip_suffix("-dirty") {
        Some(commit) => format!("{}, with changes", commit.get(..12).unwrap_or(commit)),
        None => commit.get(..12).unwrap_or(commit).to_owned(),
    }
}

fn recipe(plan: &Plan) -> String {
    fs::read_to_string(plan.folder.join("recipe.yaml")).unwrap_or_default()
}
