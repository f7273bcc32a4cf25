//! The API that the page uses, and others may.
mod address;
mod body;
mod model;
mod pieces;
pub mod problem;
mod scores;
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
use tokio::sync::Semaphore;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use address::Path;
pub use model::Model;
use problem::Problem;

use crate::{assets, desk::Desk};

/// Scores that are converted at once.
const CONVERSIONS: usize = 2;
/// MiB of converted scores that may be on their way: readers are as slow as they like.
const ANSWERS: usize = 128;

/// What handlers need.
#[derive(Clone)]
pub struct Shared {
    pub desk: Arc<Desk>,
    pub model: Arc<Model>,
    conversions: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

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
pub fn router(desk: Arc<Desk>, model: Model) -> Router {
    let (conversions, answers) = (Arc::new(Semaphore::new(CONVERSIONS)), Arc::new(Semaphore::new(ANSWERS)));
    let shared = Shared { desk, model: Arc::new(model), conversions, answers };
    let (router, document) = routes().split_for_parts();
    router
        .route("/openapi.json", get(move || async move { Json(document) }))
        .route("/", get(|| async { file("index.html") }))
        .route("/{file}", get(|Path(name): Path<String>| async move { file(&name) }))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done here").hint("see /openapi.json")
        })
        .with_state(shared)
}

/// A file of the page: only names that are in the program itself lead anywhere.
fn file(name: &str) -> Response {
    match assets::find(name) {
        Some((kind, contents)) => ([(header::CONTENT_TYPE, kind)], contents).into_response(),
        None => Problem::new(StatusCode::NOT_FOUND, "there is nothing here").into_response(),
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
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health), (status = 403, body = Problem), (status = 503, body = Health)))]
async fn healthz(State(shared): State<Shared>) -> Response {
    let busy = shared.desk.busy();
    let (code, status) = if busy.closed { (StatusCode::SERVICE_UNAVAILABLE, "closed") } else { (StatusCode::OK, "ok") };
    let health = Health { status, slots: busy.slots, writing: busy.writing, queued: busy.queued };
    (code, Json(health)).into_response()
}
