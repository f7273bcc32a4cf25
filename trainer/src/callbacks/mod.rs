//! What a training does beside its steps, a callback a file.
mod checkpointing;
mod early_stopping;
mod epochs;
mod metrics;
mod overfitting;
mod profiling;

pub(crate) use checkpointing::Checkpointing;
pub(crate) use early_stopping::EarlyStopping;
pub(crate) use epochs::Epochs;
pub(crate) use metrics::Metrics;
pub(crate) use overfitting::Overfitting;
pub(crate) use profiling::Profiling;
