//! What a command ends with when it does not succeed: one line, a way out, an exit code.
use std::fmt::Display;
use std::path::Path;

/// Why a command did not finish.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: Code,
    /// Takes the place of `code` as the exit code.
    exit_code: Option<u8>,
}

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The work failed.
    Failed = 1,
    /// The recipe or the command line is wrong.
    Usage = 2,
    /// Stopped by a signal with everything saved: try again (`EX_TEMPFAIL`).
    Interrupted = 75,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { message: one_line(message), hint: None, code: Code::Failed, exit_code: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { message: one_line(message), hint: None, code: Code::Usage, exit_code: None }
    }

    pub fn interrupted(message: impl Into<String>) -> Failure {
        Failure { message: one_line(message), hint: None, code: Code::Interrupted, exit_code: None }
    }

    /// The same, with another exit code than those of the contract.
    pub fn exit_with(mut self, code: u8) -> Failure {
        self.exit_code = Some(code);
        self
    }

    pub fn is_interruption(&self) -> bool {
        self.code == Code::Interrupted
    }

    pub fn io(action: &str, path: &Path, error: impl Display) -> Failure {
        Failure::failed(format!("cannot {action} {}: {error}", path.display()))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(one_line(hint));
        self
    }

    pub fn hint_if(mut self, hint: Option<impl Into<String>>) -> Failure {
        self.hint = hint.map(one_line).or(self.hint);
        self
    }

    /// The same, with the file, the stage or the key in front.
    pub fn of(mut self, what: &str) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same, naming the stage where the message does not.
    pub fn in_stage(mut self, stage: &str) -> Failure {
        if self.code != Code::Interrupted && !self.message.contains(&format!("stage {stage}")) {
            self.message = format!("stage {stage}: {}", self.message);
        }
        self
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Prints the error, and returns the exit code.
    pub fn report(&self, json: bool) -> u8 {
        let kind = if self.code == Code::Interrupted { "interrupted" } else { "error" };
        eprintln!("{kind}: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        if json {
            let event = serde_json::json!({
                "event": kind, "message": self.message, "hint": self.hint, "code": self.code as u8,
            });
            println!("{event}");
        }
        self.exit_code.unwrap_or(self.code as u8)
    }
}

fn one_line(text: impl Into<String>) -> String {
    text.into().split_whitespace().collect::<Vec<_>>().join(" ")
}
