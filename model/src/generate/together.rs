//! The characters of all slots' next patches on a GPU, a few at a time, always in the same memory, so that the work can be
//! recorded (CUDA graphs): a step is some hundred small kernels, which a host may launch more slowly than a GPU runs them.
use super::network::Rows;
use crate::sampling::Sampling;
use crate::{Architecture, Result};
use serde::Serialize;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use torch_ext::Graph;

/// The host looks for ended patches once in so many characters.
pub(super) const LOOK: i64 = 4;
/// So often a part of a patch is timed each way, before the quicker way is taken.
const TRIALS: u32 = 16;

/// What recording the work of a GPU gained, by the quickest of a few parts of a patch, all slots together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Recordings {
    /// Milliseconds of a part (four characters) that is launched kernel by kernel.
    pub launched_ms: f64,
    /// Milliseconds of one that is replayed; none as long as it was not tried.
    pub replayed_ms: Option<f64>,
    /// Recordings are in use.
    pub used: bool,
    /// Why nothing could be recorded.
    pub failure: Option<String>,
}

/// The quickest of so many.
#[derive(Debug, Default)]
struct Timing {
    seconds: Option<f64>,
    times: u32,
}

impl Timing {
    fn note(&mut self, seconds: f64) {
        self.seconds = Some(self.seconds.map_or(seconds, |least| least.min(seconds)));
        self.times += 1;
    }
}

/// Which way is the quicker one. It outlives a change of the number of slots.
#[derive(Debug, Default)]
pub(super) struct Trial {
    launched: Timing,
    replayed: Timing,
    failure: Option<String>,
}

impl Trial {
    /// Whether the next part is to be replayed.
    fn replays(&self) -> bool {
        self.failure.is_none()
            && self.launched.times >= TRIALS
            && (self.replayed.times < TRIALS || self.replayed.seconds < self.launched.seconds)
    }

    /// What there is to report, if there was a choice.
    pub(super) fn recordings(&self, device: Device) -> Option<Recordings> {
        let ms = |timing: &Timing| timing.seconds.map(|seconds| seconds * 1e3);
        Some(Recordings {
            launched_ms: ms(&self.launched).filter(|_| records(device))?,
            replayed_ms: ms(&self.replayed),
            used: self.replays(),
            failure: self.failure.clone(),
        })
    }
}

/// The memory of the slots' characters, and recordings of what is done in it.
pub(super) struct Together {
    rows: Rows,
    /// (slots, [`LOOK`]), int64.
    written: Tensor,
    device: Device,
    /// Of the parts of a patch, in order, for rows that are all drawn like this.
    graphs: (Option<Sampling>, Vec<Graph>),
}

impl Together {
    pub(super) fn new(slots: i64, a: &Architecture, device: Device) -> Result<Together> {
        let zeros = |columns: i64, kind: Kind| Tensor::f_zeros([slots, columns], (kind, device));
        Ok(Together {
            rows: Rows {
                x: zeros(a.hidden_size, Kind::Float)?,
                uniform: zeros(a.patch_size, Kind::Float)?,
                fixed: zeros(a.patch_size, Kind::Int64)?,
                // A recording serves all.
                given: a.patch_size,
            },
            written: zeros(LOOK, Kind::Int64)?,
            device,
            graphs: (None, Vec::new()),
        })
    }

    /// Puts these rows first. What the others hold does not matter.
    pub(super) fn fill(&mut self, rows: &Rows) -> Result<()> {
        let n = rows.x.size()[0];
        let pairs = [(&self.rows.x, &rows.x), (&self.rows.uniform, &rows.uniform), (&self.rows.fixed, &rows.fixed)];
        for (place, new) in pairs {
            place.f_narrow(0, 0, n)?.f_copy_(new)?;
        }
        Ok(())
    }

    /// Does `work`, part number `part` of a patch, and reads what it has written for the first `n` rows. `alike` is how
    /// all rows are drawn, if they are drawn in one way. The parts of a patch come in order.
    pub(super) fn part(
        &mut self,
        trial: &mut Trial,
        part: usize,
        n: i64,
        alike: Option<Sampling>,
        work: &dyn Fn(&Rows, &Tensor) -> Result<()>,
    ) -> Result<Vec<i64>> {
        let started = Instant::now();
        if part == 0 && self.graphs.0 != alike {
            self.graphs = (alike, Vec::new());
        }
        // Parts are recorded in order too: a patch that was begun without is ended without.
        let recordable = records(self.device) && alike.is_some() && self.graphs.1.len() >= part;
        let replays = recordable && trial.replays();
        let recorded = replays && self.replay(trial, part, work)?;
        if !replays {
            work(&self.rows, &self.written)?;
        }
        let read = self.written.f_narrow(0, 0, n)?.f_to_device(Device::Cpu)?;
        let read = Vec::<i64>::try_from(read.f_reshape([-1])?)?;
        // The first part waits for the patch decoder too, and a part that was recorded took its time for that.
        if part > 0 && !recorded {
            let timing = if replays { &mut trial.replayed } else { &mut trial.launched };
            timing.note(started.elapsed().as_secs_f64());
        }
        Ok(read)
    }

    /// Does `work` by its recording, or records it. Returns whether it did the latter.
    fn replay(&mut self, trial: &mut Trial, part: usize, work: &dyn Fn(&Rows, &Tensor) -> Result<()>) -> Result<bool> {
        if let Some(graph) = self.graphs.1.get(part) {
            graph.replay()?;
            return Ok(false);
        }
        let x = self.rows.x.f_detach_copy()?;
        match Graph::record(self.device, self.graphs.1.first(), || work(&self.rows, &self.written)) {
            Ok(graph) => self.graphs.1.push(graph),
            Err(error) => {
                trial.failure = Some(error.to_string());
                self.graphs.1.clear();
                self.rows.x.f_copy_(&x)?;
                work(&self.rows, &self.written)?;
            }
        }
        Ok(true)
    }
}

fn records(device: Device) -> bool {
    matches!(device, Device::Cuda(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quicker_way_is_taken_after_both_were_tried() {
        for (replayed, wins) in [(0.5, true), (2.0, false)] {
            let mut trial = Trial::default();
            for _ in 0..TRIALS {
                assert!(!trial.replays());
                trial.launched.note(1.0);
            }
            for _ in 0..TRIALS {
                assert!(trial.replays());
                trial.replayed.note(replayed);
            }
            assert_eq!(trial.replays(), wins);
            trial.failure = Some("no".to_owned());
            assert!(!trial.replays());
        }
    }
}
