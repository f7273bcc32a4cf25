//! Uploaded scores: checks them, and converts them to the form that the network writes.
use model::generate::tag_lines;
use notation::{
    Error,
    abc::{
        self, AbcScore,
        score::{AbcEvent, Bar},
    },
    export::to_musicxml,
    interleave,
    musicxml::{self, is_musicxml},
    preprocess::{self, Keys},
    rests, text,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::ApiProblem;

/// The most bytes that a compressed score may unpack to.
const MOST_UNPACKED: u64 = 32 << 20;
/// The longest ABC, in bytes.
const LONGEST: usize = 512 << 10;
/// The most notes and rests of a piece. A note takes hundreds of bytes as MusicXML.
const MOST_NOTES: usize = 200_000;
/// The most warnings in an answer.
const MOST_WARNINGS: usize = 20;

/// A score to continue.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upload {
    /// Interleaved ABC with stream tags, for the field `music` of a piece to write.
    pub music: String,
    bars: usize,
    voices: usize,
    /// What was odd about it, and what was made of it.
    warnings: Vec<String>,
}

/// Reads MusicXML, or ABC, standard or interleaved.
pub fn read(bytes: &[u8], name: &str) -> Result<Upload, ApiProblem> {
    let (text, warnings) = match musicxml::looks_like(bytes) || is_musicxml(name) {
        true => {
            let mut options = musicxml::MusicXmlOptions::default();
            options.most_bytes = MOST_UNPACKED;
            let converted = musicxml::to_abc(bytes, "", &options).map_err(|error| problem(&error, None))?;
            let warnings = converted.warnings.iter().map(ToString::to_string).collect();
            let text = with_layout(&reduced(&converted.abc).map_err(|error| problem(&error, None))?);
            check_length(&text)?;
            (text, warnings)
        }
        false => from_abc(text::decode(bytes).map_err(|error| problem(&error, None))?)?,
    };
    let lines = text.lines().filter(|line| line.starts_with("[V:") || line.starts_with("[r:"));
    let bars = lines.clone().count();
    // A text without tags does not announce its length: the continuation gets as many bars again.
    let music = tag_lines(&text, if lines.clone().any(|line| line.starts_with("[r:")) { 0 } else { bars });
    let voices = text.lines().take_while(|line| !line.starts_with('[')).filter(|line| line.starts_with("V:")).count();
    Ok(Upload { music, bars, voices, warnings })
}

fn from_abc(text: &str) -> Result<(String, Vec<String>), ApiProblem> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let wrong = |error: &Error| problem(error, Some(&text));
    let score = parse(&text)?;
    let warnings = score.warnings.iter().take(MOST_WARNINGS);
    let warnings = warnings.map(|warning| format!("line {}: {}", warning.line, warning.problem)).collect();
    if text.lines().any(|line| line.starts_with("[V:") || line.starts_with("[r:")) {
        // This is the form that the network writes. What it could not have written is an error.
        if let Some((line, column)) = not_ascii(&text) {
            let message = format!("line {line}, column {column}: a character that is not ASCII");
            return Err(ApiProblem::bad_score(message).line(Some(line)));
        }
        if let Some((line, voice)) = two_bars(&score) {
            let message = format!("line {line}: V:{voice} has two bars; a line has one bar of each voice");
            return Err(ApiProblem::bad_score(message).line(Some(line)));
        }
        let own: String = text.lines().filter(|line| !line.starts_with("X:")).flat_map(|line| [line, "\n"]).collect();
        let own = with_layout(&own);
        let whole = rests::unreduce_text(&own).map_err(|error| wrong(&error))?;
        interleave::uninterleave(&text::lines(&whole)).map_err(|error| match error {
            Error::NotInterleaved { line, voice } => {
                // The error does not count empty lines and `X:`, and counts the `%%score` line that may have been added.
                let mut filled =
                    (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with("X:"));
                let added = usize::from(!text.lines().any(|line| line.starts_with("%%score")));
                let line = filled.nth((line - 1).saturating_sub(added)).map_or(line, |(line, _)| line);
                wrong(&Error::NotInterleaved { line, voice })
            }
            error => wrong(&error),
        })?;
        return Ok((own.trim_end().to_owned() + "\n", warnings));
    }
    match reduced(&text) {
        // A tune without voices is not in the dialect of xml2abc. By way of MusicXML it becomes so.
        Err(Error::NoMusic | Error::NoVoices) => {
            let xml = to_musicxml(&text, "").map_err(|error| wrong(&error))?.output;
            let back = musicxml::to_abc(xml.as_bytes(), "", &musicxml::MusicXmlOptions::default());
            let text = back.and_then(|back| reduced(&back.abc)).map_err(|error| problem(&error, None))?;
            Ok((with_layout(&text), warnings))
        }
        other => Ok((with_layout(&other.map_err(|error| wrong(&error))?), warnings)),
    }
}

/// Parses ABC, unless it is too long to convert.
pub fn parse(text: &str) -> Result<AbcScore, ApiProblem> {
    check_length(text)?;
    let score = abc::parse(text, "").map_err(|error| problem(&error, Some(text)))?;
    let notes = |event: &AbcEvent| match event {
        AbcEvent::Chord(chord) => chord.notes.len().max(1),
        AbcEvent::Grace(chords, _) => chords.iter().map(|chord| chord.notes.len()).sum(),
        AbcEvent::Mark(_) => 0,
    };
    let bars = score.voices.iter().flat_map(|voice| &voice.bars);
    let notes: usize = bars.flat_map(|bar| bar.layers.iter().flatten()).map(notes).sum();
    match notes > MOST_NOTES {
        true => Err(too_long(&format!("{notes} notes and rests"), &MOST_NOTES.to_string())),
        false => Ok(score),
    }
}

fn check_length(text: &str) -> Result<(), ApiProblem> {
    match text.len() > LONGEST {
        true => Err(too_long(&format!("{} KiB of ABC", text.len() >> 10), &(LONGEST >> 10).to_string())),
        false => Ok(()),
    }
}

fn too_long(found: &str, most: &str) -> ApiProblem {
    let message = format!("the piece is too long: {found}, and at most {most} are read");
    ApiProblem::bad_score(message).hint("a part of it will do")
}

/// A line that has two bars of one voice, and the voice.
fn two_bars(score: &AbcScore) -> Option<(usize, &str)> {
    // A bar that begins with a change of key may begin at the end of the line before.
    let line = |at: usize| score.voices.iter().filter_map(|voice| voice.bars.get(at)).map(|bar| bar.at.line).max();
    let is = |bar: Option<&Bar>| bar.is_some_and(|bar| !bar.missing);
    (1..score.lengths.len()).filter(|&at| line(at) == line(at - 1)).find_map(|at| {
        let voice = score.voices.iter().find(|voice| is(voice.bars.get(at)) && is(voice.bars.get(at - 1)))?;
        Some((line(at)?, voice.id.as_str()))
    })
}

/// Adds the `%%score` line if there is none. What the network writes has one, and bars of rests are put back by it.
fn with_layout(text: &str) -> String {
    if text.lines().any(|line| line.starts_with("%%score")) {
        return text.to_owned();
    }
    let voices = text.lines().filter_map(|line| line.strip_prefix("V:")?.split_whitespace().next());
    format!("%%score {}\n{text}", voices.collect::<Vec<_>>().join(" "))
}

/// Converts standard ABC to the form that the network writes, in the original key.
fn reduced(abc: &str) -> notation::Result<String> {
    let reduced = preprocess::convert(abc.as_bytes(), Keys::Original)?.reduced;
    reduced.into_iter().next().map(|(_, abc)| abc).ok_or(Error::NoMusic)
}

fn not_ascii(text: &str) -> Option<(usize, usize)> {
    text.lines().enumerate().find_map(|(line, text)| {
        let column = text.chars().position(|c| !c.is_ascii())?;
        Some((line + 1, column + 1))
    })
}

/// The answer to a score that is wrong. If the error has no line, it is looked for in the text.
pub fn problem(error: &Error, text: Option<&str>) -> ApiProblem {
    let own = line(error);
    let line = own.or_else(|| text.and_then(|text| search(error, text)));
    let message = match line.filter(|_| own.is_none()) {
        Some(line) => format!("line {line}: {error}"),
        // The message begins with the line.
        None => error.to_string(),
    };
    let problem = ApiProblem::bad_score(message).line(line);
    match error.hint() {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// The line that an error has.
fn line(error: &Error) -> Option<usize> {
    match error {
        Error::MusicXml { position, .. } => Some(position.line).filter(|line| *line > 0),
        Error::Encoding { line, .. } | Error::NotAscii { line, .. } | Error::NotInterleaved { line, .. } => Some(*line),
        Error::NoNotes { line, .. } | Error::TooLong { line, .. } => Some(*line),
        Error::NotAbc { .. } => Some(1),
        _ => None,
    }
}

/// The line that an error is about, found by the text that the error quotes.
fn search(error: &Error, text: &str) -> Option<usize> {
    let first = |is: &dyn Fn(&str) -> bool| text.lines().position(is).map(|at| at + 1);
    let music = |voice: &str| {
        let begin = text.lines().position(|line| line.trim() == voice).map(|at| at + 1)?;
        let lines = text.lines().skip(begin).take_while(|line| !line.starts_with("V:")).count();
        Some((begin, lines))
    };
    match error {
        Error::Header { text: header } => first(&|line| line == header.trim_end()),
        Error::VoiceKey { voice } | Error::UndefinedVoice { voice } => first(&|line| line.starts_with(voice.as_str())),
        Error::VoiceNumber { voice } => first(&|line| line.starts_with(voice.as_str())),
        Error::Chord { voice, text: chord, .. } => match music(voice) {
            Some((begin, _)) => {
                text.lines().skip(begin).position(|line| line.contains(chord.as_str())).map(|at| begin + at + 1)
            }
            None => first(&|line| line.contains(chord.as_str())),
        },
        Error::UnknownKey { key } => first(&|line| line.starts_with("K:") && line.contains(key.as_str())),
        Error::NotBars { voice } => music(voice).map(|(begin, lines)| begin + usize::from(lines > 0)),
        // The end of the voice, which is too early or too late.
        Error::UnequalBars { voice, .. } => music(voice).map(|(begin, lines)| begin + lines),
        Error::Unreduce(_) => first(&|line| line.starts_with("[V:") || line.starts_with("[r:")),
        Error::NoKey | Error::NoVoices | Error::NoMusic => Some(1),
        _ => None,
    }
}
