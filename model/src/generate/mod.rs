//! Writing music: many pieces at once, each as the original's `inference/inference.py` writes it alone.
//!
//! The pieces share a batch of slots. In each round the patch decoder reads the newest patch of every slot, with the
//! keys and values of all earlier ones kept; the character decoder then writes the next patch of every slot character
//! by character. A piece that ends leaves its slot to the next one at once, and a piece whose context is full reads
//! the shortened one in parts beside the others.
mod attention;
mod each;
mod network;
mod random;
mod session;
#[cfg(test)]
mod tests;
mod together;
mod track;

use crate::patches::Patchiliser;
use crate::sampling::Sampling;
use crate::{Architecture, Error, NotaGen, Result};
use attention::Reading;
use network::{Network, Ready};
use notation::rests;
pub use session::{Order, Paused, Session};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind};
pub use together::Recordings;
use torch_ext::ProfiledTurns;
use track::{Beginning, Limits, Next, Track};
pub use track::{Failure, Outcome, tag_lines};

/// Patches that one slot reads in one round at most: a long context does not hold the others up.
const READ_AT_ONCE: usize = 128;
/// More pieces at once gain nothing.
const MOST_SLOTS_CPU: usize = 64;
const MOST_SLOTS_GPU: usize = 1024;
/// Above it the number of slots is a multiple of it: products of matrices are made of such blocks.
const SLOTS: u64 = 64;

/// What a piece begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Metadata lines, each with its line end (see [`crate::prompts`]).
    pub prompt: Vec<String>,
    /// Interleaved ABC to go on from, its lines of music tagged as the network writes them (see [`tag_lines`]).
    pub music: Option<String>,
}

/// What to write.
#[derive(Clone)]
pub struct Options<'a> {
    /// Pieces in all, numbered from 0; this run makes those of its shard that are not skipped.
    pub samples: usize,
    /// Pieces at once; chosen from the free memory where not given. The pieces do not depend on it.
    pub batch_size: Option<usize>,
    /// Piece i depends on the seed and i alone.
    pub seed: u64,
    /// How characters are drawn.
    pub sampling: Sampling,
    /// What the pieces begin with: piece i with number i of these, around and around. None is a start from nothing.
    pub starts: Vec<Start>,
    /// An attempt that gets longer has failed (the original's limit is 102,400).
    pub max_characters: usize,
    /// An attempt that takes longer has failed (the original's limit is 20 minutes). Counted is its share: the time of
    /// a round of the batch, divided by the pieces in it.
    pub max_seconds: f64,
    /// A piece of so many patches, the prompt's not counted, is complete.
    pub max_patches: Option<usize>,
    /// Attempts at a piece before it is given up.
    pub max_attempts: u32,
    /// (i, n): only the pieces whose number leaves the remainder i when divided by n.
    pub shard: (usize, usize),
    /// Rounds to record a Chrome trace of, and its file.
    pub profile: Option<(u64, PathBuf)>,
    /// Pieces that exist already.
    pub skip: &'a dyn Fn(usize) -> bool,
    /// Says what is wrong with a complete text; the piece is then tried again.
    pub check: &'a dyn Fn(&str) -> std::result::Result<(), String>,
}

impl Default for Options<'_> {
    /// One piece with the original's settings.
    fn default() -> Self {
        Options {
            samples: 1,
            batch_size: None,
            seed: 0,
            sampling: Sampling::default(),
            starts: Vec::new(),
            max_characters: 102_400,
            max_seconds: 20.0 * 60.0,
            max_patches: None,
            max_attempts: 10,
            shard: (0, 1),
            profile: None,
            skip: &|_| false,
            check: &|_| Ok(()),
        }
    }
}

/// A complete piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its number.
    pub index: usize,
    /// Interleaved ABC with stream tags, the prompt included.
    pub text: String,
    /// Patches written in the attempt that gave it.
    pub patches: usize,
    /// This attempt's share of the time.
    pub seconds: f64,
    /// Attempts that it took.
    pub attempts: u32,
    /// Why it is complete.
    pub outcome: Outcome,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Complete pieces.
    pub pieces: usize,
    /// Failed attempts.
    pub failed: usize,
    /// Pieces given up after the last attempt.
    pub given_up: Vec<usize>,
    /// Patches written, those of failed attempts included.
    pub patches: usize,
    /// Time in all.
    pub seconds: f64,
    /// Patches by seconds.
    pub patches_per_second: f64,
    /// Pieces at once, at the end.
    pub batch_size: usize,
    /// Told to stop before all pieces were done.
    pub stopped: bool,
    /// What CUDA graphs gained; none on a CPU.
    pub recordings: Option<Recordings>,
}

/// What happens while pieces are written.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run begins.
    Started {
        /// Pieces to make.
        pieces: usize,
        /// Pieces at once.
        batch_size: usize,
    },
    /// An attempt at a piece begins with this text.
    Began {
        /// The piece.
        index: usize,
        /// From 1.
        attempt: u32,
        /// The prompt.
        text: &'a str,
    },
    /// A patch was added to a piece.
    Text {
        /// The piece.
        index: usize,
        /// What was added.
        text: &'a str,
    },
    /// A piece is complete.
    Finished(&'a Piece),
    /// An attempt has failed.
    Failed {
        /// The piece.
        index: usize,
        /// From 1.
        attempt: u32,
        /// Why.
        reason: &'a Failure,
        /// What it had written.
        text: &'a str,
        /// Another attempt follows.
        retried: bool,
    },
    /// Memory ran out, and fewer pieces are made at once from here on.
    Lowered {
        /// Pieces at once before.
        from: usize,
        /// Pieces at once from here on.
        to: usize,
    },
    /// Every piece of the batch has got a patch.
    Round {
        /// Complete pieces.
        pieces: usize,
        /// Failed attempts.
        failed: usize,
        /// Patches written.
        patches: usize,
        /// Pieces in the making.
        live: usize,
        /// Time since the start.
        seconds: f64,
    },
}

/// A network ready to write music.
pub struct Generator {
    network: Network,
    patchiliser: Patchiliser,
    warnings: Vec<String>,
}

impl Generator {
    /// A copy of the model with its weights in `kind`: `Float`, `BFloat16` or `Half`.
    pub fn new(model: &NotaGen, kind: Kind) -> Result<Generator> {
        if !matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half) {
            return Err(Error::Invalid(format!("music is written in Float, BFloat16 or Half, not in {kind:?}")));
        }
        torch_ext::keep_freed_memory();
        let patchiliser = Patchiliser::new(model.architecture().patch_size as usize)?;
        let warnings = torch_ext::kernels::ready(model.device(), kind)?;
        Ok(Generator { network: Network::new(model, kind)?, patchiliser, warnings })
    }

    /// What a person should know about the kernels that are used.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The model's sizes.
    pub fn architecture(&self) -> &Architecture {
        &self.network.architecture
    }

    /// Bytes that each piece at once takes beside the weights, at most.
    pub fn bytes_per_piece(&self) -> u64 {
        network::bytes_per_slot(self.architecture(), self.network.kind)
    }

    /// Pieces at once that the free memory holds.
    pub fn batch_size_for_memory(&self) -> Result<usize> {
        let (free, most) = match self.network.device {
            Device::Cpu => (available_memory()?, MOST_SLOTS_CPU),
            device => (torch_ext::device_memory(device)?.free, MOST_SLOTS_GPU),
        };
        let mut fitting = network::slots_in(free / 10 * 8, self.architecture(), self.network.kind);
        if fitting > SLOTS {
            fitting -= fitting % SLOTS;
        }
        Ok(usize::try_from(fitting).unwrap_or(most).clamp(1, most))
    }

    /// Writes pieces. `on_event` is told what happens, and may break off: complete pieces stay complete.
    pub fn run(&mut self, options: &Options, on_event: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<Summary> {
        let _no_grad = tch::no_grad_guard();
        let mut run = Run::new(self, options)?;
        let result = run.all(on_event);
        let summary = run.summary();
        self.network.release();
        result.map(|flow| Summary { stopped: flow.is_break(), ..summary })
    }
}

/// What a piece is written by, the same in all its attempts.
#[derive(Debug, Clone)]
struct Terms {
    seed: u64,
    /// With the seed, names its random numbers.
    number: u64,
    sampling: Sampling,
    beginning: Arc<Beginning>,
    limits: Limits,
}

/// An attempt at a piece.
#[derive(Debug)]
struct Writing {
    track: Track,
    terms: Terms,
    /// Random numbers made ahead, and which patch they are for.
    ahead: Option<(u64, Vec<f32>)>,
}

impl Writing {
    fn new(index: usize, attempt: u32, terms: Terms) -> Writing {
        Writing { track: Track::new(index, attempt, &terms.beginning), terms, ahead: None }
    }

    /// What the characters of a patch are drawn with.
    fn numbers(&self, patch: u64, size: usize) -> Vec<f32> {
        random::uniform(self.terms.seed, self.terms.number, u64::from(self.track.attempt), patch, size)
    }

    /// The same for the next patch.
    fn next_numbers(&mut self, size: usize) -> Vec<f32> {
        match self.ahead.take() {
            Some((patch, numbers)) if patch == self.track.draws => numbers,
            _ => self.numbers(self.track.draws, size),
        }
    }

    /// Makes those of the patch behind the one that is being written.
    fn make_ahead(&mut self, size: usize) {
        let patch = self.track.draws + 1;
        self.ahead = Some((patch, self.numbers(patch, size)));
    }
}

struct Run<'r, 'o> {
    network: &'r mut Network,
    patchiliser: Patchiliser,
    options: &'r Options<'o>,
    limits: Limits,
    beginnings: Vec<Arc<Beginning>>,
    /// Numbers of the pieces not begun yet, in reverse.
    todo: Vec<usize>,
    /// Attempts begun that have no slot.
    waiting: VecDeque<Writing>,
    slots: Vec<Option<Writing>>,
    started: Instant,
    pieces: usize,
    failed: usize,
    given_up: Vec<usize>,
    patches: usize,
}

impl<'r, 'o> Run<'r, 'o> {
    fn new(generator: &'r mut Generator, options: &'r Options<'o>) -> Result<Run<'r, 'o>> {
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
            patch_length: generator.network.architecture.patch_length as usize,
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
            network: &mut generator.network,
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
            recordings: self.network.recordings(),
        }
    }

    fn all(&mut self, on_event: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let (pieces, batch_size) = (self.todo.len(), self.slots.len());
        if pieces == 0 {
            return Ok(on_event(Event::Started { pieces, batch_size }));
        }
        let made = self.network.resize(batch_size as i64);
        let mut flow = on_event(Event::Started { pieces, batch_size });
        if let Err(error) = made {
            flow = self.lower(error, on_event)?;
        }
        let profile = self.options.profile.as_ref();
        let device = self.network.device;
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
    fn round(&mut self, on_event: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
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
    fn refill(&mut self, on_event: &mut dyn FnMut(Event) -> ControlFlow<()>) -> ControlFlow<()> {
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
                on_event(Event::Began { index, attempt: attempt + 1, text })?;
            }
            self.slots[slot] = Some(writing);
        }
        ControlFlow::Continue(())
    }

    /// One round of the network: the next patch of every slot that has read all of its context.
    fn predict(&mut self) -> Result<Vec<(usize, Vec<u8>)>> {
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
                readings.push(Reading { slot, start, characters: unread });
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
        let written = self.network.round(readings, &ready, &mut meanwhile)?;
        Ok(ready.iter().map(|ready| ready.slot).zip(written).collect())
    }

    /// Counts the time of one round.
    fn share(&mut self, seconds: f64) {
        let live = self.slots.iter().flatten().count().max(1) as f64;
        for writing in self.slots.iter_mut().flatten() {
            writing.track.seconds += seconds / live;
        }
    }

    fn accept(
        &mut self,
        predicted: Vec<(usize, Vec<u8>)>,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
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
                flow = or(flow, on_event(Event::Text { index: track.index, text }));
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
        Ok(or(flow, on_event(Event::Round { pieces, failed, patches, live, seconds })))
    }

    fn complete(
        &mut self,
        track: Track,
        outcome: Outcome,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.pieces += 1;
        on_event(Event::Finished(&Piece {
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
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.failed += 1;
        let (index, attempt, text) = (track.index, track.attempt + 1, track.text.as_str());
        let retried = attempt < self.options.max_attempts;
        if retried {
            self.waiting.push_back(Writing::new(index, attempt, terms));
        } else {
            self.given_up.push(index);
        }
        on_event(Event::Failed { index, attempt, reason, text, retried })
    }

    /// Goes on with half as many pieces at once if `error` says that memory ran out. Every attempt goes on where it
    /// was: its context is read again.
    fn lower(
        &mut self,
        mut error: Error,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        loop {
            let from = self.slots.len();
            if !out_of_memory(&error) || from < 2 {
                return Err(error);
            }
            let to = from / 2;
            self.network.release();
            torch_ext::empty_cache(self.network.device)?;
            for writing in self.slots.iter_mut().flatten() {
                writing.track.cached = 0;
            }
            for writing in self.slots.drain(to..).rev().flatten() {
                self.waiting.push_front(writing);
            }
            let flow = on_event(Event::Lowered { from, to });
            match self.network.resize(to as i64) {
                Ok(()) => return Ok(flow),
                Err(next) if flow.is_continue() => error = next,
                Err(_) => return Ok(flow),
            }
        }
    }
}

/// A piece counts where its rests can be put back and a network can be trained on it.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(abc: &str) -> std::result::Result<(), String> {
    if abc.contains('\0') {
        return Err("a NUL character in its text".to_owned());
    }
    rests::unreduce_text(abc).map(drop).map_err(|error| error.to_string())
}

fn or(first: ControlFlow<()>, second: ControlFlow<()>) -> ControlFlow<()> {
    if first.is_break() { first } else { second }
}

fn out_of_memory(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("out of memory") || text.contains("can't allocate memory")
}

/// Bytes that the system can still give out (`MemAvailable`).
fn available_memory() -> Result<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").map_err(|e| Error::Invalid(format!("/proc/meminfo: {e}")))?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::Invalid("/proc/meminfo has no MemAvailable".to_owned()))
}
