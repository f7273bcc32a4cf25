//! Learning-rate schedules, in the form of transformers' `get_*_schedule_with_warmup`.
use serde::{Deserialize, Serialize};

/// The learning rate over the steps, behind a linear warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays where it is (the original).
    Constant,
    /// Falls along half a cosine to `floor` times the rate.
    Cosine {
        /// The portion left at the end.
        floor: f64,
    },
    /// Warm-up, stable, decay: falls in a line to `floor` times the rate over the last `decay_steps`.
    Wsd {
        /// Steps of the fall.
        decay_steps: u64,
        /// The portion left at the end.
        floor: f64,
    },
}

/// The factor of the learning rate at an optimizer step counted from 0, skipped steps not counted.
///
/// As in transformers, the first step of a warm-up has rate 0.
pub fn factor(schedule: Schedule, warmup_steps: u64, total_steps: u64, step: u64) -> f64 {
    if step < warmup_steps {
        return step as f64 / warmup_steps as f64;
    }
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine { floor } => {
            let progress = (step - warmup_steps) as f64 / total_steps.saturating_sub(warmup_steps).max(1) as f64;
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
        }
        Schedule::Wsd { decay_steps, floor } => {
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
        let factors: Vec<f64> = (0..6).map(|step| factor(Schedule::Constant, 4, 10, step)).collect();
        assert_eq!(factors, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn cosine_and_wsd_end_at_their_floor() {
        let cosine = Schedule::Cosine { floor: 0.1 };
        assert_eq!(factor(cosine, 0, 100, 0), 1.0);
        assert!((factor(cosine, 0, 100, 50) - 0.55).abs() < 1e-12);
        assert!((factor(cosine, 0, 100, 100) - 0.1).abs() < 1e-12);
        let wsd = Schedule::Wsd { decay_steps: 20, floor: 0.0 };
        assert_eq!([79, 80, 90, 100].map(|step| factor(wsd, 10, 100, step)), [1.0, 1.0, 0.5, 0.0]);
    }
}
