//! `/api/model`: the network, the prompts to choose from, and the limits.
use std::sync::Arc;

use ::model::{Architecture, sampling::Sampling};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    assets,
    config::{Config, VisitorLimits},
    problem::ApiProblem,
    prompt_choices::Period,
};

/// The network, the prompts to choose from, and the limits.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Model)]
pub struct ModelInfo {
    /// The name of the weights.
    weights: String,
    /// The SHA-256 of the weights.
    sha256: String,
    parameters: i64,
    /// The network's context, in patches of 16 characters.
    patch_length: i64,
    /// The prompts to choose from; empty if any prompt will do.
    pub periods: Vec<Period>,
    defaults: Defaults,
    limits: VisitorLimits,
    /// What this build of the page lacks.
    missing: Vec<String>,
    /// The version of notagen-train.
    version: &'static str,
}

/// Settings that hold where a request has none.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Defaults {
    top_k: i64,
    top_p: f64,
    temperature: f64,
}

impl ModelInfo {
    pub fn new(config: &Config, architecture: &Architecture, periods: Vec<Period>) -> ModelInfo {
        let Sampling { top_k, top_p, temperature } = Sampling::default();
        ModelInfo {
            weights: config.weights.clone(),
            sha256: config.sha256.clone(),
            parameters: architecture.parameter_count(),
            patch_length: architecture.patch_length,
            periods,
            defaults: Defaults { top_k, top_p, temperature },
            limits: config.limits,
            missing: assets::missing().iter().map(|&missing| missing.to_owned()).collect(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// The network, the prompts to choose from, and the limits.
#[utoipa::path(get, path = "/api/model", responses((status = 200, body = ModelInfo), (status = 403, body = ApiProblem)))]
pub async fn model(State(model): State<Arc<ModelInfo>>) -> Json<ModelInfo> {
    Json(ModelInfo::clone(&model))
}
