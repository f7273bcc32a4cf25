//! What the handlers share.
use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::Semaphore;

use super::model::ModelInfo;
use crate::queue::PieceQueue;

/// How many scores are converted at once.
const CONVERSIONS: usize = 2;
/// MiB of converted scores that may be in memory at once. Clients may be slow to read them.
const MOST_CONVERTED: usize = 128;

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    pub queue: Arc<PieceQueue>,
    pub model: Arc<ModelInfo>,
    /// A permit for each conversion.
    pub conversions: Arc<Semaphore>,
    /// A permit for each MiB of converted scores.
    pub converted: Arc<Semaphore>,
}

impl Shared {
    pub fn new(queue: Arc<PieceQueue>, model: ModelInfo) -> Shared {
        let (conversions, converted) = (Semaphore::new(CONVERSIONS), Semaphore::new(MOST_CONVERTED));
        let (conversions, converted) = (Arc::new(conversions), Arc::new(converted));
        Shared { queue, model: Arc::new(model), conversions, converted }
    }
}

impl FromRef<Shared> for Arc<ModelInfo> {
    fn from_ref(shared: &Shared) -> Arc<ModelInfo> {
        Arc::clone(&shared.model)
    }
}
