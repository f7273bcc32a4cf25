//! The API that the page uses, and others may.
mod address;
mod body;
mod model;
mod pieces;
mod scores;
mod shared;
mod stream;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use address::Path;
pub use model::ModelInfo;
use shared::Shared;

use crate::{assets, problem::ApiProblem, queue::PieceQueue};

#[derive(OpenApi)]
#[openapi(info(
    title = "notagen-train demo",
    description = "Pieces of music, written by a NotaGen while one watches. A piece is asked for with POST /api/pieces \
                   and followed with GET /api/pieces/{id}/events. The same weights, seed, settings, prompt and music give \
                   the same piece."
))]
struct Document;

fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(healthz))
        .routes(routes!(model::model))
        .routes(routes!(pieces::add))
        .routes(routes!(pieces::piece))
        .routes(routes!(stream::events))
        .routes(routes!(pieces::stop))
        .routes(routes!(pieces::resume))
        .routes(routes!(pieces::score))
        .routes(routes!(scores::upload))
        .routes(routes!(scores::convert))
}

/// The OpenAPI document, as it is served.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().to_openapi()
}

/// Everything that is served.
pub fn router(queue: Arc<PieceQueue>, model: ModelInfo) -> Router {
    let shared = Shared::new(queue, model);
    let (router, document) = routes().split_for_parts();
    router
        .route("/openapi.json", get(move || async move { Json(document) }))
        .route("/", get(|| async { file("index.html") }))
        .route("/{file}", get(|Path(name): Path<String>| async move { file(&name) }))
        .fallback(|| async { ApiProblem::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            ApiProblem::new(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done here").hint("see /openapi.json")
        })
        .with_state(shared)
}

/// A file of the page.
fn file(name: &str) -> Response {
    match assets::find(name) {
        Some((kind, contents)) => ([(header::CONTENT_TYPE, kind)], contents).into_response(),
        None => ApiProblem::new(StatusCode::NOT_FOUND, "there is nothing here").into_response(),
    }
}

/// Whether music can be written.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`, or `closed` while the server ends.
    status: &'static str,
    /// Pieces written at once.
    slots: usize,
    /// Pieces being written.
    writing: usize,
    /// Pieces that wait.
    queued: usize,
}

/// Whether music can be written, and how busy it is.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health), (status = 403, body = ApiProblem), (status = 503, body = Health)))]
async fn healthz(State(shared): State<Shared>) -> Response {
    let load = shared.queue.load();
    let (code, status) = if load.closed { (StatusCode::SERVICE_UNAVAILABLE, "closed") } else { (StatusCode::OK, "ok") };
    let health = Health { status, slots: load.slots, writing: load.writing, queued: load.queued };
    (code, Json(health)).into_response()
}
