//! `/api/model`: what writes, what there is to choose, and what is allowed.
use ::model::{Architecture, sampling::Sampling};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Shared, problem::Problem};
use crate::{Config, assets, choices::Period};

/// What writes the music.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Model {
    /// The name of the weights.
    weights: String,
    /// Their SHA-256.
    sha256: String,
    parameters: i64,
    /// Patches that it sees at once, 16 characters each.
    patch_length: i64,
    /// What there is to choose from; empty where prompts are free.
    pub periods: Vec<Period>,
    defaults: Defaults,
    limits: Allowed,
    /// What this build of the page lacks, for people.
    missing: Vec<String>,
    /// The version of notagen-train.
    version: &'static str,
}

/// The settings of a request that does not have them.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Defaults {
    top_k: i64,
    top_p: f64,
    temperature: f64,
}

/// What may be asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Allowed {
    /// Pieces written at once.
    at_once: usize,
    /// Pieces that wait.
    queue: usize,
    /// Bytes of a request.
    body: usize,
    /// Seconds of a piece: its share of the time.
    seconds: f64,
    /// Patches of a piece.
    patches: Option<usize>,
}

impl Model {
    pub fn new(config: &Config, architecture: &Architecture, periods: Vec<Period>) -> Model {
        let Sampling { top_k, top_p, temperature } = Sampling::default();
        let limits = config.limits;
        Model {
            weights: config.weights.clone(),
            sha256: config.sha256.clone(),
            parameters: architecture.parameter_count(),
            patch_length: architecture.patch_length,
            periods,
            defaults: Defaults { top_k, top_p, temperature },
            limits: Allowed {
                at_once: limits.at_once,
                queue: limits.queue,
                body: limits.body,
                seconds: limits.seconds,
                patches: limits.patches,
            },
            missing: assets::missing().iter().map(|&missing| missing.to_owned()).collect(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// What writes, what there is to choose from, and what is allowed.
#[utoipa::path(get, path = "/api/model", responses((status = 200, body = Model), (status = 403, body = Problem)))]
pub async fn model(State(shared): State<Shared>) -> Json<Model> {
    Json(Model::clone(&shared.model))
}
