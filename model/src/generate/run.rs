//! A run: pieces that share the slots of a batch, their attempts, and what comes of them.
use super::attention::UnreadPatches;
use super::generator::Generator;
use super::network::{READ_AT_ONCE, Ready};
use super::options::{GenerationEvent, Options, Summary, WrittenPiece};
use super::random;
use super::track::{Beginning, Failure, Limits, Next, Outcome, Start, Track};
use super::writer::PatchWriter;
use crate::patches::Patchiliser;
use crate::sampling::Sampling;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use torch_ext::ProfiledTurns;

impl Generator {
    /// Writes pieces. `on_event` gets every event and may stop the run; complete pieces stay complete.
    pub fn run(
        &mut self,
        options: &Options,
        on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>,
    ) -> Result<Summary> {
        let _no_grad = tch::no_grad_guard();
        let mut run = Run::new(self, options)?;
        let result = run.all(on_event);
        let summary = run.summary();
        self.writer.release();
        result.map(|flow| Summary { stopped: flow.is_break(), ..summary })
    }
}

/// How a piece is written, the same in all its attempts.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) seed: u64,
    /// With the seed, names its random numbers.
    pub(super) number: u64,
    pub(super) sampling: Sampling,
    pub(super) beginning: Arc<Beginning>,
    pub(super) limits: Limits,
}

/// An attempt at a piece.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) track: Track,
    pub(super) terms: Terms,
    /// Random numbers made ahead, and which patch they are for.
    ahead: Option<(u64, Vec<f32>)>,
}

impl Writing {
    pub(super) fn new(index: usize, attempt: u32, terms: Terms) -> Writing {
        Writing { track: Track::new(index, attempt, &terms.beginning), terms, ahead: None }
    }

    /// The random numbers of a patch, one a character.
    fn numbers(&self, patch: u64, size: usize) -> Vec<f32> {
        random::uniform(self.terms.seed, self.terms.number, u64::from(self.track.attempt), patch, size)
    }

    /// The same for the next patch.
    pub(super) fn next_numbers(&mut self, size: usize) -> Vec<f32> {
        match self.ahead.take() {
            Some((patch, numbers)) if patch == self.track.draws => numbers,
            _ => self.numbers(self.track.draws, size),
        }
    }

    /// Makes those of the patch behind the one that is being written.
    pub(super) fn make_ahead(&mut self, size: usize) {
        let patch = self.track.draws + 1;
        self.ahead = Some((patch, self.numbers(patch, size)));
    }
}

pub(super) struct Run<'r, 'o> {
    pub(super) writer: &'r mut PatchWriter,
    pub(super) patchiliser: Patchiliser,
    options: &'r Options<'o>,
    pub(super) limits: Limits,
    beginnings: Vec<Arc<Beginning>>,
    /// Numbers of the pieces not begun yet, in reverse.
    pub(super) todo: Vec<usize>,
    /// Attempts begun that have no slot.
    pub(super) waiting: VecDeque<Writing>,
    pub(super) slots: Vec<Option<Writing>>,
    started: Instant,
    pieces: usize,
    failed: usize,
    given_up: Vec<usize>,
    patches: usize,
}

impl<'r, 'o> Run<'r, 'o> {
    pub(super) fn new(generator: &'r mut Generator, options: &'r Options<'o>) -> Result<Run<'r, 'o>> {
        options.sampling.check()?;
        let (shard, shards) = options.shard;
        if shard >= shards {
            return Err(Error::Invalid(format!("there is no shard {shard} of {shards}")));
        }
        if options.batch_size == Some(0) || options.max_attempts == 0 {
            return Err(Error::Invalid("the batch size and the number of attempts must be at least 1".to_owned()));
        }
        let patchiliser = generator.patchiliser;
        let limits = Limits {
            patch_length: generator.writer.network.architecture.patch_length as usize,
            characters: options.max_characters,
            seconds: options.max_seconds,
            patches: options.max_patches,
        };
        let nothing = [Start::default()];
        let starts = if options.starts.is_empty() { &nothing } else { options.starts.as_slice() };
        let beginnings = starts.iter().map(|start| Beginning::new(&patchiliser, start, &limits).map(Arc::new));
        let beginnings = beginnings.collect::<Result<_>>()?;
        let todo: Vec<usize> =
            (0..options.samples).rev().filter(|i| i % shards == shard && !(options.skip)(*i)).collect();
        let wanted = match options.batch_size {
            Some(size) => size,
            None => generator.batch_size_for_memory()?,
        };
        let slots = wanted.min(todo.len());
        Ok(Run {
            writer: &mut generator.writer,
            patchiliser,
            options,
            limits,
            beginnings,
            todo,
            waiting: VecDeque::new(),
            slots: (0..slots).map(|_| None).collect(),
            started: Instant::now(),
            pieces: 0,
            failed: 0,
            given_up: Vec::new(),
            patches: 0,
        })
    }

    fn summary(&self) -> Summary {
        let seconds = self.started.elapsed().as_secs_f64();
        Summary {
            pieces: self.pieces,
            failed: self.failed,
            given_up: self.given_up.clone(),
            patches: self.patches,
            seconds,
            patches_per_second: self.patches as f64 / seconds.max(f64::MIN_POSITIVE),
            batch_size: self.slots.len(),
            stopped: false,
            recordings: self.writer.graph_stats(),
        }
    }

    fn all(&mut self, on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let (pieces, batch_size) = (self.todo.len(), self.slots.len());
        if pieces == 0 {
            return Ok(on_event(GenerationEvent::Started { pieces, batch_size }));
        }
        let made = self.writer.resize(batch_size as i64);
        let mut flow = on_event(GenerationEvent::Started { pieces, batch_size });
        if let Err(error) = made {
            flow = self.lower(error, on_event)?;
        }
        let profile = self.options.profile.as_ref();
        let device = self.writer.network.device;
        let mut profile = profile.map(|(rounds, path)| ProfiledTurns::new(*rounds, path.clone(), device));
        while flow.is_continue() {
            flow = self.refill(on_event);
            if flow.is_break() || self.slots.iter().all(Option::is_none) {
                break;
            }
            flow = self.round(on_event)?;
            if let Some(profile) = &mut profile {
                profile.turn(false)?;
            }
        }
        if let Some(profile) = &mut profile {
            profile.turn(true)?;
        }
        Ok(flow)
    }

    /// The next patch of every piece that has a slot.
    pub(super) fn round(
        &mut self,
        on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let started = Instant::now();
        match self.predict() {
            Err(error) => self.lower(error, on_event),
            Ok(predicted) => {
                self.share(started.elapsed().as_secs_f64());
                self.accept(predicted, on_event)
            }
        }
    }

    /// The terms of a numbered piece of the run.
    fn terms(&self, index: usize) -> Terms {
        Terms {
            seed: self.options.seed,
            number: index as u64,
            sampling: self.options.sampling,
            beginning: Arc::clone(&self.beginnings[index % self.beginnings.len()]),
            limits: self.limits,
        }
    }

    /// Gives every free slot to an attempt that waits or to a new piece.
    pub(super) fn refill(&mut self, on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>) -> ControlFlow<()> {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_some() {
                continue;
            }
            let next = self.waiting.pop_front().or_else(|| {
                let index = self.todo.pop()?;
                Some(Writing::new(index, 0, self.terms(index)))
            });
            let Some(writing) = next else { break };
            if writing.track.draws == 0 {
                let Track { index, attempt, ref text, .. } = writing.track;
                on_event(GenerationEvent::Began { index, attempt: attempt + 1, text })?;
            }
            self.slots[slot] = Some(writing);
        }
        ControlFlow::Continue(())
    }

    /// One round of the network: the next patch of every slot that has read all of its context.
    pub(super) fn predict(&mut self) -> Result<Vec<(usize, Vec<u8>)>> {
        let size = self.patchiliser.patch_size();
        let (mut readings, mut ready) = (Vec::new(), Vec::new());
        for (slot, writing) in self.slots.iter_mut().enumerate() {
            let Some(writing) = writing else { continue };
            let (mut unread, given) = writing.track.input(size);
            let whole = unread.len() <= READ_AT_ONCE * size;
            unread.truncate(READ_AT_ONCE * size);
            let start = writing.track.cached;
            let cached = start + unread.len() / size;
            writing.track.cached = cached;
            if !unread.is_empty() {
                readings.push(UnreadPatches { slot, start, characters: unread });
            }
            if whole {
                let (uniform, sampling) = (writing.next_numbers(size), writing.terms.sampling);
                ready.push(Ready { slot, cached, given, uniform, sampling });
            }
        }
        let slots = &mut self.slots;
        let mut meanwhile = || {
            for ready in &ready {
                if let Some(writing) = &mut slots[ready.slot] {
                    writing.make_ahead(size);
                }
            }
        };
        let written = self.writer.round(readings, &ready, &mut meanwhile)?;
        Ok(ready.iter().map(|ready| ready.slot).zip(written).collect())
    }

    /// Divides the time of a round among its pieces.
    fn share(&mut self, seconds: f64) {
        let live = self.slots.iter().flatten().count().max(1) as f64;
        for writing in self.slots.iter_mut().flatten() {
            writing.track.seconds += seconds / live;
        }
    }

    pub(super) fn accept(
        &mut self,
        predicted: Vec<(usize, Vec<u8>)>,
        on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        for (slot, characters) in predicted {
            let Some(mut writing) = self.slots[slot].take() else { continue };
            let track = &mut writing.track;
            let (length, patches) = (track.text.len(), track.patches);
            let mut next = track.accept(&characters, &self.patchiliser, &writing.terms.limits)?;
            if track.patches > patches {
                self.patches += 1;
                let text = &track.text[length..];
                flow = or(flow, on_event(GenerationEvent::Text { index: track.index, text }));
            }
            if let Next::Complete(_) = next
                && let Err(reason) = (self.options.check)(&track.text)
            {
                next = Next::Fail(Failure::Refused(reason));
            }
            match next {
                Next::Continue => self.slots[slot] = Some(writing),
                Next::Complete(outcome) => flow = or(flow, self.complete(writing.track, outcome, on_event)),
                Next::Fail(reason) => flow = or(flow, self.fail(writing, &reason, on_event)),
            }
        }
        let (pieces, failed, patches) = (self.pieces, self.failed, self.patches);
        let live = self.slots.iter().flatten().count();
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(or(flow, on_event(GenerationEvent::Round { pieces, failed, patches, live, seconds })))
    }

    fn complete(
        &mut self,
        track: Track,
        outcome: Outcome,
        on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.pieces += 1;
        on_event(GenerationEvent::Finished(&WrittenPiece {
            index: track.index,
            patches: track.patches,
            seconds: track.seconds,
            attempts: track.attempt + 1,
            outcome,
            text: track.text,
        }))
    }

    fn fail(
        &mut self,
        Writing { track, terms, .. }: Writing,
        reason: &Failure,
        on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.failed += 1;
        let (index, attempt, text) = (track.index, track.attempt + 1, track.text.as_str());
        let retried = attempt < self.options.max_attempts;
        if retried {
            self.waiting.push_back(Writing::new(index, attempt, terms));
        } else {
            self.given_up.push(index);
        }
        on_event(GenerationEvent::Failed { index, attempt, reason, text, retried })
    }

    /// Goes on with half as many pieces at once if `error` says that memory ran out. Every attempt goes on where it
    /// was: its context is read again.
    pub(super) fn lower(
        &mut self,
        mut error: Error,
        on_event: &mut dyn FnMut(GenerationEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        loop {
            let from = self.slots.len();
            if !error.is_out_of_memory() || from < 2 {
                return Err(error);
            }
            let to = from / 2;
            self.writer.release();
            torch_ext::empty_cache(self.writer.network.device)?;
            for writing in self.slots.iter_mut().flatten() {
                writing.track.cached = 0;
            }
            for writing in self.slots.drain(to..).rev().flatten() {
                self.waiting.push_front(writing);
            }
            let flow = on_event(GenerationEvent::Lowered { from, to });
            match self.writer.resize(to as i64) {
                Ok(()) => return Ok(flow),
                Err(next) if flow.is_continue() => error = next,
                Err(_) => return Ok(flow),
            }
        }
    }
}

fn or(first: ControlFlow<()>, second: ControlFlow<()>) -> ControlFlow<()> {
    if first.is_break() { first } else { second }
}
