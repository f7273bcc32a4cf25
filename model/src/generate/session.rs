//! Pieces that are added and removed while others are written, each with its own seed, settings and beginning.
use super::generator::Generator;
use super::options::{GenerationEvent, Options};
use super::run::{Run, Terms, Writing};
use super::track::{Beginning, Limits, Start};
use crate::Result;
use crate::sampling::Sampling;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A piece to write.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The piece is the first of a run with this seed, whoever is written beside it and whenever it comes.
    pub seed: u64,
    /// How its characters are drawn.
    pub sampling: Sampling,
    /// What it begins with.
    pub start: Start,
    /// As in [`Options`].
    pub max_patches: Option<usize>,
}

/// A piece taken out of its batch, to go on later where it was.
#[derive(Debug)]
pub struct Paused(Writing);

/// Writes pieces that are added while it runs.
pub struct Session<'g, 'o>(Run<'g, 'o>);

impl Generator {
    /// A batch without pieces yet. Of the options it uses the batch size, the limits of characters and time, the attempts
    /// and the check; the rest comes with each [`Order`].
    pub fn session<'g, 'o>(&'g mut self, options: &'g Options<'o>) -> Result<Session<'g, 'o>> {
        let slots = match options.batch_size {
            Some(size) => size,
            None => self.batch_size_for_memory()?,
        };
        let mut run = Run::new(self, options)?;
        run.todo.clear();
        run.slots = (0..slots).map(|_| None).collect();
        if let Err(error) = run.writer.resize(slots as i64) {
            let _ = run.lower(error, &mut |_| ControlFlow::Continue(()))?;
        }
        Ok(Session(run))
    }
}

impl Session<'_, '_> {
    /// Pieces that are written at once.
    pub fn slots(&self) -> usize {
        self.0.slots.len()
    }

    /// Pieces that can be added now and begin at once.
    pub fn free(&self) -> usize {
        let taken = self.0.slots.iter().flatten().count() + self.0.waiting.len();
        self.slots().saturating_sub(taken)
    }

    /// There is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.waiting.is_empty() && self.0.slots.iter().all(Option::is_none)
    }

    /// Adds a piece; `index` is its name in the events. It begins in the next round that has a slot for it.
    pub fn add(&mut self, index: usize, order: &Order) -> Result<()> {
        order.sampling.check()?;
        let limits = Limits { patches: order.max_patches, ..self.0.limits };
        let beginning = Arc::new(Beginning::new(&self.0.patchiliser, &order.start, &limits)?);
        let terms = Terms { seed: order.seed, number: 0, sampling: order.sampling, beginning, limits };
        self.0.waiting.push_back(Writing::new(index, 0, terms));
        Ok(())
    }

    /// Takes a piece out, if it is here.
    pub fn pause(&mut self, index: usize) -> Option<Paused> {
        let named = |writing: &Writing| writing.track.index == index;
        let slot = self.0.slots.iter_mut().find(|slot| slot.as_ref().is_some_and(named));
        let mut writing = match slot.and_then(Option::take) {
            Some(writing) => writing,
            None => {
                let at = self.0.waiting.iter().position(named)?;
                self.0.waiting.remove(at)?
            }
        };
        // Another piece will write over its keys and values: it reads its context again.
        writing.track.cached = 0;
        Some(Paused(writing))
    }

    /// Puts a piece back. The pause does not change what it becomes.
    pub fn resume(&mut self, paused: Paused) {
        self.0.waiting.push_back(paused.0);
    }

    /// Writes a patch of every piece, and begins those that were added.
    ///
    /// # Errors
    /// Of the network; memory that runs out lowers the number of slots first. The pieces are in doubt then.
    pub fn round(&mut self, on_event: &mut dyn FnMut(GenerationEvent)) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let on_event = &mut |event: GenerationEvent| {
            on_event(event);
            ControlFlow::Continue(())
        };
        let _ = self.0.refill(on_event);
        if self.0.slots.iter().any(Option::is_some) {
            let _ = self.0.round(on_event)?;
        }
        Ok(())
    }
}

impl Drop for Session<'_, '_> {
    fn drop(&mut self) {
        self.0.writer.release();
    }
}
