//! What the demo reports while it runs.
use std::sync::Arc;

use serde_json::Value;

/// One event, for people and for programs.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// `listening`, `queued`, `began`, `finished`, `failed`, `stopped`, `refused`, `warning` or `closed`.
    pub event: &'static str,
    /// The message for people, without a line end.
    pub message: String,
    /// Details for programs.
    pub fields: Value,
}

/// Where lines go.
pub type Log = Arc<dyn Fn(&LogLine) + Send + Sync>;
