//! The thread that writes music: the batch that all visitors share.
use std::{collections::HashMap, sync::Arc};

use model::generate::{GenerationEvent, Generator, Options, Paused, Session};

use crate::{
    Error,
    desk::{Desk, Tasks},
    piece::Piece,
};

/// Batches in a row that break off before one has written anything.
const FAULTS: u32 = 3;

/// Writes what the desk has, until it is closed.
///
/// # Errors
/// The network fails again and again.
pub fn run(generator: &mut Generator, desk: &Desk, options: &Options) -> Result<(), Error> {
    let mut engine = Engine { desk, writing: HashMap::new(), paused: HashMap::new() };
    let mut faults = 0;
    loop {
        let mut session = generator.session(options)?;
        let Err(error) = engine.write(&mut session, &mut faults) else { return Ok(()) };
        drop(session);
        faults += 1;
        engine.give_up(&error);
        if faults == FAULTS {
            return Err(error.into());
        }
    }
}

struct Engine<'a> {
    desk: &'a Desk,
    writing: HashMap<usize, Arc<Piece>>,
    paused: HashMap<usize, Paused>,
}

impl Engine<'_> {
    fn write(&mut self, session: &mut Session, faults: &mut u32) -> model::Result<()> {
        while let Some(tasks) = self.desk.next(session.free(), session.slots(), session.is_empty()) {
            self.change(session, tasks);
            session.round(&mut |event| {
                *faults = 0;
                self.event(&event);
            })?;
        }
        Ok(())
    }

    fn change(&mut self, session: &mut Session, tasks: Tasks) {
        for number in tasks.forgotten {
            self.paused.remove(&number);
        }
        for number in tasks.stop {
            let Some(piece) = self.writing.remove(&number) else { continue };
            if let Some(paused) = session.pause(number) {
                self.paused.insert(number, paused);
            }
            let reason = piece.state().reason.clone().unwrap_or_default();
            piece.stop(&reason);
            self.desk.leave(&piece);
            self.desk.say("stopped", &piece, &reason);
        }
        for piece in tasks.begin {
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
                    piece.begin(*attempt, text);
                    self.desk.say("began", piece, "");
                }
            }
            GenerationEvent::Text { index, text } => {
                if let Some(piece) = self.writing.get(index) {
                    piece.add(text);
                }
            }
            GenerationEvent::Finished(finished) => {
                if let Some(piece) = self.writing.remove(&finished.index) {
                    piece.finish(finished.outcome);
                    self.desk.leave(&piece);
                    self.desk.say("finished", &piece, "");
                }
            }
            GenerationEvent::Failed { index, reason, retried: false, .. } => self.fail(*index, reason.to_string()),
            GenerationEvent::Failed { index, reason, .. } => {
                if let Some(piece) = self.writing.get(index) {
                    piece.fail_once(reason.to_string());
                }
            }
            GenerationEvent::Lowered { from, to } => {
                self.desk.warn(&format!("memory ran out: {to} pieces at once instead of {from}"))
            }
            GenerationEvent::Started { .. } | GenerationEvent::Round { .. } => {}
        }
    }

    fn fail(&mut self, number: usize, reason: String) {
        if let Some(piece) = self.writing.remove(&number) {
            piece.fail(reason.clone());
            self.desk.leave(&piece);
            self.desk.say("failed", &piece, &reason);
        }
    }

    /// The batch is lost.
    fn give_up(&mut self, error: &model::Error) {
        self.desk.warn(&format!("the batch broke off: {error}"));
        let numbers: Vec<usize> = self.writing.keys().copied().collect();
        for number in numbers {
            self.fail(number, format!("the network failed: {error}"));
        }
    }
}
