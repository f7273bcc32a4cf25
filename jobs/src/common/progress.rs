//! What people see while it runs (standard error) and what programs read (standard output, with `--json`).
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// Without a terminal a line of progress comes this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Says what happens, to people, to programs and to the log of the stage.
#[derive(Debug)]
pub struct Reporter {
    json: bool,
    terminal: bool,
    bar: Option<ProgressBar>,
    log: Option<File>,
    stage: Option<String>,
    last_line: Option<Instant>,
    quiet: bool,
}

impl Reporter {
    pub fn new(json: bool) -> Reporter {
        Reporter {
            json,
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            log: None,
            stage: None,
            last_line: None,
            quiet: false,
        }
    }

    /// Says warnings alone: another process speaks for this one.
    pub fn quiet() -> Reporter {
        Reporter { quiet: true, ..Reporter::new(false) }
    }

    /// From here on messages belong to this stage, and go to its log too.
    pub fn begin(&mut self, stage: &str, folder: &Path) {
        if self.quiet {
            return;
        }
        self.stage = Some(stage.to_owned());
        self.last_line = None;
        self.log = OpenOptions::new().create(true).append(true).open(folder.join("log.txt")).ok();
    }

    /// The stage is over.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.log = None;
        self.stage = None;
    }

    /// One line for people.
    pub fn say(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if self.quiet && !line.starts_with("warning: ") {
            return;
        }
        let text = match &self.stage {
            Some(stage) => format!("[{stage}] {line}"),
            None => line.to_owned(),
        };
        match &self.bar {
            Some(bar) => bar.suspend(|| print(&text)),
            None => print(&text),
        }
        self.log(line);
    }

    /// Something that people should look at.
    pub fn warn(&mut self, line: impl AsRef<str>) {
        self.say(format!("warning: {}", line.as_ref()));
        self.event("warning", serde_json::json!({ "message": line.as_ref() }));
    }

    /// One object for programs.
    pub fn event(&mut self, event: &str, mut fields: Value) {
        if !self.json {
            return;
        }
        if let Value::Object(map) = &mut fields {
            map.insert("event".to_owned(), event.into());
            if let Some(stage) = &self.stage {
                map.entry("stage").or_insert_with(|| stage.as_str().into());
            }
        }
        output(&fields);
    }

    /// How far the stage is: `position` of `length` where that is known, and what is to be seen beside it.
    pub fn progress(&mut self, position: u64, length: Option<u64>, text: &str) {
        if self.quiet {
            return;
        }
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| bar(self.stage.as_deref().unwrap_or_default()));
            if bar.length() != length {
                match length {
                    Some(length) => bar.set_length(length),
                    None => bar.unset_length(),
                }
            }
            bar.set_position(position);
            bar.set_message(text.to_owned());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            self.last_line = Some(Instant::now());
            let of = length.map(|length| format!("/{length}")).unwrap_or_default();
            self.say(format!("{position}{of} {text}"));
        }
    }

    fn log(&mut self, line: &str) {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        if let Some(log) = &mut self.log {
            // A full disk is reported by what the stage writes; the log is not worth ending it for.
            let _ = writeln!(log, "{} {line}", clock(time));
        }
    }
}

/// One JSON object a line on standard output.
pub fn output(value: &Value) {
    result(&value.to_string());
}

/// A line on standard output. A reader that went away is no failure of the work.
pub fn result(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn bar(stage: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    let template = "{prefix} {wide_bar} {pos}/{len} {msg}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(stage.to_owned());
    bar
}

/// Date and time in UTC, as ISO 8601 writes them.
pub fn clock(seconds: u64) -> String {
    // Days to a date after Howard Hinnant's chrono-compatible algorithms.
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A length of time as people write it.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0 => format!("{seconds:.1}s"),
        1..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A number of bytes as people write it.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 || unit == "TiB" {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    String::new()
}

/// A count with a metric prefix.
pub fn metric(count: f64) -> String {
    for (unit, size) in [("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if count >= size {
            return format!("{:.1}{unit}", count / size);
        }
    }
    format!("{count:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_knows_leap_days() {
        assert_eq!(clock(0), "1970-01-01T00:00:00Z");
        assert_eq!(clock(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(clock(1_763_757_000), "2025-11-21T20:30:00Z");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(duration(3725.0), "1h02m");
        assert_eq!(duration(0.25), "0.2s");
        assert_eq!(metric(5.4e6), "5.4M");
    }
}
