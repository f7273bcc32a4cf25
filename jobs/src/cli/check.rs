//! `check`: do the voices of pieces go together, and the staves of their instruments?
use std::path::Path;

use notation::alignment::Alignment;
use notation::corpus::{self, PieceSource};
use notation::grouping::is_grouped;
use notation::{Error, alignment, interleave, preprocess, rests, text};
use serde_json::json;

use crate::common::failure::{Failure, Result};
use crate::common::{progress, table};

/// What a piece is written in.
enum Form {
    Standard,
    Interleaved,
    /// Interleaved, bars of resting voices left out.
    Reduced,
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Form::Standard => "standard",
            Form::Interleaved => "interleaved",
            Form::Reduced => "reduced",
        }
    }
}

pub fn run(folder: &Path, json: bool) -> Result<()> {
    let mut pieces = corpus::list(folder, &["abc"])?;
    pieces.retain(|piece| !matches!(piece, PieceSource::File(path) if path.parent() != Some(folder)));
    if pieces.is_empty() {
        return Err(Failure::usage(format!("{}: no .abc files here", folder.display())));
    }
    let mut rows = vec![["piece", "form", "bar lines", "bars", "durations", "staves"].map(str::to_owned).to_vec()];
    let (mut aligned, mut grouped) = (0, 0);
    for piece in &pieces {
        let path = piece.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let lines = text::lines(&String::from_utf8_lossy(&piece.read()?));
        let (form, result) = check(&lines);
        let result = result.map_err(|error| match line(&form, &error, &lines) {
            Some(line) => format!("line {line}: {error}"),
            None => error.to_string(),
        });
        let together = is_grouped(&lines);
        grouped += usize::from(together);
        let word = |good: bool| if good { "same" } else { "differ" }.to_owned();
        let staves = if together { "together" } else { "apart" }.to_owned();
        match &result {
            Ok(Alignment { bar_lines, bar_numbers, durations }) => {
                aligned += usize::from(*bar_lines && *bar_numbers && *durations);
                let cells = [*bar_lines, *bar_numbers, *durations].map(word);
                rows.push([vec![name, form.name().to_owned()], cells.to_vec(), vec![staves]].concat());
            }
            Err(error) => rows.push(vec![name, form.name().to_owned(), error.clone()]),
        }
        if json {
            let aligned = result.as_ref().ok();
            progress::output(&json!({
                "path": path.display().to_string(),
                "form": form.name(),
                "bar_lines": aligned.map(|aligned| aligned.bar_lines),
                "bar_numbers": aligned.map(|aligned| aligned.bar_numbers),
                "durations": aligned.map(|aligned| aligned.durations),
                "grouped": together,
                "error": result.as_ref().err(),
            }));
        }
    }
    let all = pieces.len();
    if json {
        eprintln!("{all} pieces: {aligned} aligned, {grouped} with the staves of each instrument together");
    } else {
        progress::result(table::render(&rows).trim_end());
        progress::result(&format!(
            "{all} pieces: {aligned} aligned, {grouped} with the staves of each instrument together"
        ));
    }
    Ok(())
}

/// The line that an error is about, if it does not say it.
fn line(form: &Form, error: &Error, lines: &[String]) -> Option<usize> {
    match (form, error) {
        (Form::Standard, _) => preprocess::locate(&lines.concat(), error).map(|(line, _)| line),
        (Form::Interleaved, Error::UnequalBars { .. }) => {
            let start = lines.iter().position(|line| line.contains("[V:1]"))?;
            let alone = |line: usize| taken_apart(&[&lines[..start], &lines[line..=line]].concat());
            let uneven = |line: &usize| matches!(alone(*line), Err(Error::UnequalBars { .. }));
            (start..lines.len()).find(uneven).map(|line| line + 1)
        }
        _ => None,
    }
}

/// As the original asks it: interleaved pieces are taken apart first.
fn check(lines: &[String]) -> (Form, notation::Result<Alignment>) {
    if !lines.iter().any(|line| line.contains("[V:")) {
        return (Form::Standard, alignment::check(lines));
    }
    match taken_apart(lines) {
        Err(Error::NotInterleaved { line, voice }) => match rests::unreduce_text(&lines.concat()) {
            Ok(full) => (Form::Reduced, taken_apart(&text::lines(&full))),
            Err(_) => (Form::Interleaved, Err(Error::NotInterleaved { line, voice })),
        },
        result => (Form::Interleaved, result),
    }
}

fn taken_apart(lines: &[String]) -> notation::Result<Alignment> {
    alignment::check(&interleave::uninterleave(lines)?)
}
