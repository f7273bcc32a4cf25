//! What is served, where, and what visitors may use up.
use std::{net::IpAddr, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

/// What is served, where, and within which limits.
pub struct Config {
    /// The name of the weights.
    pub weights: String,
    /// The SHA-256 of the weights' file. Together with seed and settings it determines a piece.
    pub sha256: String,
    /// The prompts to choose from, as `Period_Composer_Instrumentation`. Empty if visitors write their own.
    pub prompts: Vec<String>,
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// What visitors may use up.
    pub limits: VisitorLimits,
}

/// What visitors may use up.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Allowed)]
pub struct VisitorLimits {
    /// How many pieces are written at once.
    pub at_once: usize,
    /// How many pieces may wait.
    pub queue: usize,
    /// The longest request, in bytes.
    pub body: usize,
    /// The longest time for a piece, in seconds.
    pub seconds: f64,
    /// The longest piece, in patches.
    pub patches: Option<usize>,
    /// Ends a connection whose request head, or then its body, does not arrive within this time, or whose reader takes
    /// nothing of the answer for so long.
    #[serde(skip)]
    pub io_timeout: Duration,
}

impl Default for VisitorLimits {
    fn default() -> VisitorLimits {
        VisitorLimits {
            at_once: 8,
            queue: 100,
            body: 4 << 20,
            seconds: 20.0 * 60.0,
            patches: None,
            io_timeout: Duration::from_secs(15),
        }
    }
}
