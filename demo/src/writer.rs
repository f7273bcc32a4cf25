//! The thread that writes music, in a batch that all visitors share.
use std::{collections::HashMap, sync::Arc};

use model::generate::{GenerationEvent, Generator, Options, Paused, Session};

use crate::{
    error::Error,
    piece::VisitorPiece,
    queue::{BatchChanges, PieceQueue},
};

/// The demo ends after so many batches in a row that failed before they wrote anything.
const MOST_FAILURES: u32 = 3;

/// Writes the pieces of the queue until it is closed.
///
/// # Errors
/// The network fails again and again.
pub fn run(generator: &mut Generator, queue: &PieceQueue, options: &Options) -> Result<(), Error> {
    let mut writer = Writer { queue, writing: HashMap::new(), paused: HashMap::new() };
    let mut failures = 0;
    loop {
        let mut session = generator.session(options)?;
        let Err(error) = writer.write(&mut session, &mut failures) else { return Ok(()) };
        drop(session);
        failures += 1;
        writer.fail_all(&error);
        if failures == MOST_FAILURES {
            return Err(error.into());
        }
    }
}

struct Writer<'a> {
    queue: &'a PieceQueue,
    writing: HashMap<usize, Arc<VisitorPiece>>,
    paused: HashMap<usize, Paused>,
}

impl Writer<'_> {
    fn write(&mut self, session: &mut Session, failures: &mut u32) -> model::Result<()> {
        while let Some(changes) = self.queue.next_changes(session.free(), session.slots(), session.is_empty()) {
            self.change_batch(session, changes);
            session.round(&mut |event| {
                *failures = 0;
                self.event(&event);
            })?;
        }
        Ok(())
    }

    fn change_batch(&mut self, session: &mut Session, changes: BatchChanges) {
        for number in changes.forgotten {
            self.paused.remove(&number);
        }
        for number in changes.stop {
            let Some(piece) = self.writing.remove(&number) else { continue };
            if let Some(paused) = session.pause(number) {
                self.paused.insert(number, paused);
            }
            let reason = piece.state().reason.clone().unwrap_or_default();
            piece.stop(&reason);
            self.queue.leave_batch(&piece);
            self.queue.log_piece("stopped", &piece, &reason);
        }
        for piece in changes.begin {
            self.writing.insert(piece.number, Arc::clone(&piece));
            match self.paused.remove(&piece.number) {
                Some(paused) => session.resume(paused),
                None => {
                    if let Err(error) = session.add(piece.number, &piece.order) {
                        self.fail(piece.number, error.to_string());
                    }
                }
            }
        }
    }

    fn event(&mut self, event: &GenerationEvent) {
        match event {
            GenerationEvent::Began { index, attempt, text } => {
                if let Some(piece) = self.writing.get(index) {
                    piece.begin_attempt(*attempt, text);
                    self.queue.log_piece("began", piece, "");
                }
            }
            GenerationEvent::Text { index, text } => {
                if let Some(piece) = self.writing.get(index) {
                    piece.add_text(text);
                }
            }
            GenerationEvent::Finished(finished) => {
                if let Some(piece) = self.writing.remove(&finished.index) {
                    piece.finish(finished.outcome);
                    self.queue.leave_batch(&piece);
                    self.queue.log_piece("finished", &piece, "");
                }
            }
            GenerationEvent::Failed { index, reason, retried: false, .. } => self.fail(*index, reason.to_string()),
            GenerationEvent::Failed { index, reason, .. } => {
                if let Some(piece) = self.writing.get(index) {
                    piece.fail_attempt(reason.to_string());
                }
            }
            GenerationEvent::Lowered { from, to } => {
                self.queue.log_warning(&format!("memory ran out: {to} pieces at once instead of {from}"))
            }
            GenerationEvent::Started { .. } | GenerationEvent::Round { .. } => {}
        }
    }

    fn fail(&mut self, number: usize, reason: String) {
        if let Some(piece) = self.writing.remove(&number) {
            piece.fail(reason.clone());
            self.queue.leave_batch(&piece);
            self.queue.log_piece("failed", &piece, &reason);
        }
    }

    /// Gives up all pieces of a batch that broke off.
    fn fail_all(&mut self, error: &model::Error) {
        self.queue.log_warning(&format!("the batch broke off: {error}"));
        let numbers: Vec<usize> = self.writing.keys().copied().collect();
        for number in numbers {
            self.fail(number, format!("the network failed: {error}"));
        }
    }
}
