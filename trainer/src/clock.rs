//! The seconds of a training, and the speed of its steps.
use crate::Workload;
use std::time::{Duration, Instant};

/// Counts the seconds of a training, those before an interruption included.
pub(crate) struct Clock {
    before: f64,
    since: Instant,
    left_out: Duration,
}

impl Clock {
    /// Goes on after so many seconds.
    pub(crate) fn resume(before: f64) -> Clock {
        Clock { before, since: Instant::now(), left_out: Duration::ZERO }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.since.elapsed().saturating_sub(self.left_out).as_secs_f64()
    }

    /// Does something whose time is not the training's.
    pub(crate) fn leave_out(&mut self, work: impl FnOnce()) {
        let begun = Instant::now();
        work();
        self.left_out += begun.elapsed();
    }
}

/// What steps computed since the last log event, and the time that they took: evaluations and checkpoints are not steps.
#[derive(Default)]
pub(crate) struct Speed {
    pub(crate) work: Workload,
    /// From the beginning of each step until it was begun, and until the numbers of steps were there.
    pub(crate) elapsed: Duration,
    /// How long of it the device waited for a batch.
    pub(crate) waited: Duration,
}
