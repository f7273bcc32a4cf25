//! The table of prompts: the period, composer and instrumentation of each piece. NotaGen's fine-tuning data has them at
//! the top of each piece, as three lines of comment.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::scores::score_name;
use crate::text;
use crate::transliterate::transliterate;
use crate::{Error, Result};

const COLUMNS: [&str; 4] = ["piece", "period", "composer", "instrumentation"];

/// The prompt of a piece, a row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PiecePrompt {
    /// `Period_Composer_Instrumentation`, as for `generate --prompt`.
    pub text: String,
    /// The line of the table, counted from 1.
    pub line: u64,
}

impl PiecePrompt {
    /// The lines of comment at the top of the piece.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.text.split('_').map(|part| format!("%{part}\n"))
    }
}

/// The table of prompts.
#[derive(Clone, Debug, Default)]
pub struct PromptTable {
    path: PathBuf,
    /// The number of the column `piece`, counted from 1.
    piece_column: usize,
    /// The prompts by the name of the piece.
    pub pieces: HashMap<String, PiecePrompt>,
}

impl PromptTable {
    /// Reads a table. Its first line names the columns `piece`, `period`, `composer` and `instrumentation`, in any order.
    /// Text is transliterated to ASCII, as in scores.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Prompts`] names line and column.
    pub fn read(path: &Path) -> Result<PromptTable> {
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let wrong =
            |line: u64, column: usize, problem: String| Error::Prompts { path: path.to_owned(), line, column, problem };
        let text = text::decode(&bytes).map_err(|error| match error {
            Error::Encoding { line, .. } => wrong(line as u64, 1, "not UTF-8".to_owned()),
            other => other,
        })?;
        let text = text.trim_start_matches('\u{feff}');
        let mut table = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut rows = table.records();
        let mut line = LineCount::default();
        let mut next = || -> Result<Option<(StringRecord, u64)>> {
            match rows.next() {
                None => Ok(None),
                Some(Ok(row)) => {
                    let line = line.of(text, &row);
                    Ok(Some((row, line)))
                }
                Some(Err(error)) => Err(wrong(1, 1, error.to_string())),
            }
        };

        let places = match next()? {
            Some((head, line)) => columns(&head).map_err(|(column, problem)| wrong(line, column, problem))?,
            None => return Err(wrong(1, 1, format!("empty: the first line names the columns {}", COLUMNS.join(",")))),
        };
        let mut pieces: HashMap<String, PiecePrompt> = HashMap::new();
        while let Some((row, line)) = next()? {
            if row.len() != places.len() {
                let problem = format!("{} fields, not {}", row.len(), places.len());
                return Err(wrong(line, row.len().min(places.len() + 1), problem));
            }
            let field = |of: usize| {
                field(&row[places[of]], COLUMNS[of]).map_err(|problem| wrong(line, places[of] + 1, problem))
            };
            let piece = score_name(&row[places[0]]).to_owned();
            if piece.is_empty() {
                return Err(wrong(line, places[0] + 1, "piece: empty".to_owned()));
            }
            if let Some(other) = pieces.get(&piece) {
                let problem = format!("piece: {piece} is in line {} already", other.line);
                return Err(wrong(line, places[0] + 1, problem));
            }
            let text = [field(1)?, field(2)?, field(3)?].join("_");
            pieces.insert(piece, PiecePrompt { text, line });
        }
        Ok(PromptTable { path: path.to_owned(), piece_column: places[0] + 1, pieces })
    }

    /// Checks that there is a piece for every row. Otherwise the prompt would be ignored without a warning.
    ///
    /// # Errors
    /// [`Error::Prompts`] for the first row without a piece.
    pub fn check(&self, is_piece: impl Fn(&str) -> bool) -> Result<()> {
        let unknown = self.pieces.iter().filter(|(name, _)| !is_piece(name));
        let Some((name, prompt)) = unknown.min_by_key(|(_, prompt)| prompt.line) else { return Ok(()) };
        Err(Error::Prompts {
            path: self.path.clone(),
            line: prompt.line,
            column: self.piece_column,
            problem: format!("piece: there is no score called {name:?}"),
        })
    }
}

/// Counts the lines of a table. The count of `csv` is wrong where line ends are `\r\n`.
#[derive(Default)]
struct LineCount {
    at: usize,
    ends: u64,
}

impl LineCount {
    /// The line where a row begins, counted from 1. Rows come in ascending order.
    fn of(&mut self, text: &str, row: &StringRecord) -> u64 {
        let start = row.position().map_or(0, |position| position.byte() as usize).min(text.len());
        let bytes = text.as_bytes();
        let start = start + bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let more = bytes.get(self.at..start).unwrap_or_default();
        self.ends += more.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = self.at.max(start);
        self.ends + 1
    }
}

/// The index of each column of [`COLUMNS`]. Errors have the number of a column, counted from 1.
fn columns(head: &StringRecord) -> Result<[usize; 4], (usize, String)> {
    for (i, name) in head.iter().enumerate() {
        if !COLUMNS.contains(&name) {
            return Err((i + 1, format!("no column is called {name:?}: they are {}", COLUMNS.join(","))));
        }
        if head.iter().take(i).any(|other| other == name) {
            return Err((i + 1, format!("{name} is there twice")));
        }
    }
    let mut places = [0; 4];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let missing = || (head.len(), format!("the column {name} is missing"));
        *place = head.iter().position(|column| column == name).ok_or_else(missing)?;
    }
    Ok(places)
}

/// A part of a prompt, in the characters that NotaGen can read and write.
fn field(text: &str, column: &str) -> Result<String, String> {
    let ascii = transliterate(text);
    let wrong = |c: char| c.is_control() || !c.is_ascii() || matches!(c, '_' | '%' | '[' | ']');
    match ascii.chars().find(|c| wrong(*c)) {
        _ if ascii.trim().is_empty() => Err(format!("{column}: empty")),
        Some(c) => Err(format!("{column}: {text:?} has {c:?}, which a prompt cannot have")),
        None => Ok(ascii.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &str) -> Result<PromptTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.csv");
        fs::write(&path, table).unwrap();
        PromptTable::read(&path)
    }

    #[test]
    fn columns_in_any_order_quotes_and_characters() {
        let prompts = read(
            "\u{feff}period,piece,instrumentation,composer\r\n\
             Classical, sonata.2.mxl ,Keyboard,\"Beethoven, Ludwig van\"\r\n\r\n\
             Romantic,trio,Chamber,\"Dvořák, Antonín\"\r\n",
        )
        .unwrap();
        assert_eq!(prompts.pieces.len(), 2);
        let lines: String = prompts.pieces["sonata.2"].lines().collect();
        assert_eq!(lines, "%Classical\n%Beethoven, Ludwig van\n%Keyboard\n");
        assert_eq!(prompts.pieces["trio"].text, "Romantic_Dvorak, Antonin_Chamber");
        let error = prompts.check(|name| name == "sonata.2").unwrap_err().to_string();
        assert!(error.ends_with("prompts.csv: line 4, column 2: piece: there is no score called \"trio\""), "{error}");
        prompts.check(|_| true).unwrap();
    }

    #[test]
    fn errors_have_line_and_column() {
        let head = "piece,period,composer,instrumentation\n";
        for (table, expected) in [
            (String::new(), "line 1, column 1: empty"),
            ("piece,time,composer,instrumentation\n".to_owned(), "line 1, column 2: no column is called \"time\""),
            ("piece,period,composer\n".to_owned(), "line 1, column 3: the column instrumentation is missing"),
            ("piece,period,period\n".to_owned(), "line 1, column 3: period is there twice"),
            (format!("{head}a,Baroque,Bach, Johann Sebastian,Choral\n"), "line 2, column 5: 5 fields, not 4"),
            (format!("{head}a,b,c,d\ne,f\n"), "line 3, column 2: 2 fields, not 4"),
            (format!("{head}a,b,c,d\n\"a\",b,c,d\n"), "line 3, column 1: piece: a is in line 2 already"),
            (format!("{head}a,b, ,d\n"), "line 2, column 3: composer: empty"),
            (format!("{head},b,c,d\n"), "line 2, column 1: piece: empty"),
            (format!("{head}a,b,c,d_e\n"), "line 2, column 4: instrumentation: \"d_e\" has '_'"),
            (format!("{head}a,\"b\nc\",c,d\n"), "line 2, column 2: period: \"b\\nc\" has '\\n'"),
        ] {
            let error = read(&table).unwrap_err().to_string();
            assert!(error.contains(&format!("prompts.csv: {expected}")), "{error}, expected {expected}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin.csv");
        fs::write(&path, b"piece,period,composer,instrumentation\na,Romantic,Dvo\xf8\xe1k,Chamber\n").unwrap();
        assert!(PromptTable::read(&path).unwrap_err().to_string().ends_with("latin.csv: line 2, column 1: not UTF-8"));
    }
}
