//! Learning-rate schedules, in the form of transformers' `get_*_schedule_with_warmup`.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The course of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine down to min_learning_rate.
    Cosine,
    /// It stays, then falls in a line to min_learning_rate over the last steps.
    Wsd,
}

/// The portion of all steps in which a wsd schedule falls, where nothing else is said.
pub const DECAY_FRACTION: f64 = 0.1;

/// The factor of the learning rate at an optimizer step counted from 0, skipped steps not counted. The rate falls to
/// `floor` times itself; with wsd over the last `decay_steps`.
///
/// As in transformers, the first step of a warm-up has rate 0.
pub(crate) fn factor(
    schedule: Schedule,
    warmup_steps: u64,
    (decay_steps, floor): (u64, f64),
    total_steps: u64,
    step: u64,
) -> f64 {
    if step < warmup_steps {
        return step as f64 / warmup_steps as f64;
    }
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let progress = (step - warmup_steps) as f64 / total_steps.saturating_sub(warmup_steps).max(1) as f64;
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
        }
        Schedule::Wsd => {
            let left = total_steps.saturating_sub(step) as f64 / decay_steps.max(1) as f64;
            floor + (1.0 - floor) * left.min(1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_rises_from_zero() {
        let factors: Vec<f64> = (0..6).map(|step| factor(Schedule::Constant, 4, (0, 0.0), 10, step)).collect();
        assert_eq!(factors, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn cosine_and_wsd_end_at_their_floor() {
        let cosine = |step| factor(Schedule::Cosine, 0, (0, 0.1), 100, step);
        assert_eq!(cosine(0), 1.0);
        assert!((cosine(50) - 0.55).abs() < 1e-12);
        assert!((cosine(100) - 0.1).abs() < 1e-12);
        let wsd = |step| factor(Schedule::Wsd, 10, (20, 0.0), 100, step);
        assert_eq!([79, 80, 90, 100].map(wsd), [1.0, 1.0, 0.5, 0.0]);
    }
}
