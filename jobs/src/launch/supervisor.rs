//! Starts the workers of one machine and looks after them: one that fails ends the others, a signal reaches all.
use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use torch_ext::StoreServer;

use crate::common::failure::{Code, Failure, Result};
use crate::common::progress::Reporter;
use crate::common::{files, signals};

/// A worker's supervisor, by its process id.
pub const SUPERVISOR: &str = "NOTAGEN_TRAIN_SUPERVISOR";
/// The exit code of a supervised worker that ends because another one did.
pub const PEER: u8 = 76;

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// What wait(2) says of a process that left with exit code 1.
const FAILED: i32 = 1 << 8;
/// How long the other workers may go on after a failure: before SIGTERM, then before SIGKILL.
const GRACE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Lines of a worker's log that are shown when it fails.
const LINES: usize = 12;

/// Runs this program's command line in `nproc` workers. After a failure it starts them again from the last checkpoint, at
/// most `max_restarts` times. Rank 0 prints for all; the output of the others goes to `ranks/` in the run's folder.
///
/// # Errors
/// The failure of the workers. Where rank 0 has printed it already, the process ends here with the same exit code.
pub fn supervise(
    nproc: usize,
    max_restarts: u32,
    run: &Path,
    reporter: &mut Reporter,
    stop: &AtomicBool,
) -> Result<()> {
    let logs = run.join("ranks");
    files::make_folder(&logs)?;
    reporter.say(format!("{nproc} processes; the logs of ranks 1 to {} are in {}", nproc - 1, logs.display()));
    for attempt in 0.. {
        let mut workers = Workers::start(nproc, attempt, &logs, stop)?;
        let Some(end) = workers.wait_for_all(stop) else { return Ok(()) };
        let what = workers.describe(&end);
        if end.code == Code::Interrupted || end.code == Code::Usage || stop.load(Ordering::Relaxed) {
            return leave(&end, what);
        }
        if attempt >= max_restarts {
            return leave(&end, what);
        }
        reporter.say(format!("{what}; restart {} of {max_restarts}, from the last checkpoint", attempt + 1));
    }
    Ok(())
}

fn leave(end: &WorkerEnd, what: String) -> Result<()> {
    // Told to stop before it could listen.
    if end.code == Code::Interrupted && end.status.signal().is_some() {
        return Err(signals::stopped());
    }
    // Rank 0 has said it itself.
    if end.code == Code::Interrupted || (end.rank == 0 && end.status.code().is_some()) {
        signals::leave(end.code as u8);
    }
    let failure = if end.code == Code::Usage { Failure::usage(what) } else { Failure::failed(what) };
    Err(failure.hint("the same command goes on from the last checkpoint; --max-restarts N does so by itself"))
}

/// The worker that failed first or was stopped, and how it ended.
struct WorkerEnd {
    rank: usize,
    status: ExitStatus,
    code: Code,
}

struct Workers {
    children: Vec<Child>,
    ended: Vec<Option<ExitStatus>>,
    logs: PathBuf,
    store: StoreServer,
    /// When SIGTERM was passed on to all.
    stopped: Option<Instant>,
    /// The rank that did not end after SIGTERM.
    hung: Option<usize>,
}

impl Workers {
    fn start(nproc: usize, attempt: u32, logs: &Path, stop: &AtomicBool) -> Result<Workers> {
        let store = StoreServer::start()?;
        let program = env::current_exe().map_err(|error| Failure::failed(format!("this program's path: {error}")))?;
        // What --fresh removes is removed once.
        let arguments = env::args_os().skip(1).filter(|word| attempt == 0 || word != "--fresh");
        let arguments: Vec<_> = arguments.collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Workers {
            children: Vec::new(),
            ended: vec![None; nproc],
            logs: logs.to_owned(),
            store,
            stopped: None,
            hung: None,
        };
        for rank in 0..nproc {
            signals::check_stop(stop)?;
            let mut command = Command::new(&program);
            command.args(&arguments).stdin(Stdio::null());
            // Of the terminal's signals the supervisor alone hears, and passes them on once.
            command.process_group(0);
            for (name, value) in [
                ("RANK", rank),
                ("WORLD_SIZE", nproc),
                ("LOCAL_RANK", rank),
                ("LOCAL_WORLD_SIZE", nproc),
                ("MASTER_PORT", workers.store.port().into()),
                ("TORCHELASTIC_RESTART_COUNT", attempt as usize),
                (SUPERVISOR, std::process::id() as usize),
            ] {
                command.env(name, value.to_string());
            }
            command.env("MASTER_ADDR", "127.0.0.1").env("TORCHELASTIC_USE_AGENT_STORE", "True");
            if env::var_os("OMP_NUM_THREADS").is_none() {
                command.env("OMP_NUM_THREADS", (cores / nproc).max(1).to_string());
            }
            if rank > 0 {
                let log = workers.log(rank, attempt)?;
                let other = log.try_clone().map_err(|error| Failure::failed(format!("a log of a worker: {error}")))?;
                command.stdout(log).stderr(other);
            }
            match command.spawn() {
                Ok(child) => workers.children.push(child),
                Err(error) => {
                    workers.signal(Signal::KILL);
                    return Err(Failure::failed(format!("cannot start {}: {error}", program.display())));
                }
            }
        }
        Ok(workers)
    }

    fn log_path(&self, rank: usize) -> PathBuf {
        self.logs.join(format!("rank-{rank}.log"))
    }

    fn log(&self, rank: usize, attempt: u32) -> Result<File> {
        let path = self.log_path(rank);
        let mut options = OpenOptions::new();
        options.create(true).append(attempt > 0).write(true).truncate(attempt == 0);
        options.open(&path).map_err(|error| Failure::io("open", &path, error))
    }

    /// Waits until all have ended. Returns nothing if all of them succeeded.
    fn wait_for_all(&mut self, stop: &AtomicBool) -> Option<WorkerEnd> {
        let (mut failed, mut first): (Option<Instant>, Option<WorkerEnd>) = (None, None);
        let mut signals_sent = 0;
        loop {
            for (child, ended) in self.children.iter_mut().zip(&mut self.ended) {
                if ended.is_none() {
                    // How one ended that cannot be waited for is not known, and so no success.
                    *ended = child.try_wait().unwrap_or(Some(ExitStatus::from_raw(FAILED)));
                }
            }
            if failed.is_none() && self.ended.iter().flatten().any(|status| self.is_failure(status)) {
                failed = Some(Instant::now());
            }
            if let Some(since) = failed {
                if signals_sent == 0 && since.elapsed() > GRACE[0] || self.ended.iter().all(Option::is_some) {
                    // One that ended because of another is not the one to name: the other may still be there, and hang.
                    let by_itself = |end: &WorkerEnd| end.status.code() != Some(PEER.into());
                    first = first.or_else(|| self.first_failure().filter(by_itself));
                }
                if signals_sent == 0 && since.elapsed() > GRACE[0] {
                    self.signal(Signal::TERM);
                    signals_sent = 1;
                } else if signals_sent == 1 && since.elapsed() > GRACE[1] {
                    self.hung = self.ended.iter().position(Option::is_none);
                    self.signal(Signal::KILL);
                    signals_sent = 2;
                }
            }
            if self.ended.iter().all(Option::is_some) {
                return first.or_else(|| self.first_failure());
            }
            match self.stopped {
                None if stop.load(Ordering::Relaxed) => {
                    self.signal(Signal::TERM);
                    self.stopped = Some(Instant::now());
                }
                // Others may wait for it, and have nothing to save.
                Some(since) if since.elapsed() > GRACE[1] && self.one_did_not_listen() => self.signal(Signal::KILL),
                _ => {}
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The worker that failed before others failed because of it; if none failed, one that was stopped by a signal.
    fn first_failure(&self) -> Option<WorkerEnd> {
        let ended = || self.ended.iter().enumerate().filter_map(|(rank, status)| Some((rank, (*status)?)));
        let by = |wanted: &dyn Fn(&ExitStatus) -> bool| ended().find(|(_, status)| wanted(status));
        let hung = self.hung.and_then(|rank| Some((rank, self.ended[rank]?)));
        let (rank, status) = hung
            .or_else(|| by(&|status| self.is_failure(status) && status.signal().is_some()))
            .or_else(|| by(&|status| self.is_failure(status) && status.code() != Some(PEER.into())))
            .or_else(|| by(&|status| self.is_failure(status)))
            .or_else(|| by(&|status| !status.success()))?;
        let code = match status.code() {
            Some(2) => Code::Usage,
            Some(75) => Code::Interrupted,
            None if !self.is_failure(&status) => Code::Interrupted,
            _ => Code::Failed,
        };
        Some(WorkerEnd { rank, status, code })
    }

    fn is_failure(&self, status: &ExitStatus) -> bool {
        let by = |signal: Signal| status.signal() == Some(signal.as_raw());
        let stopped = self.stopped.is_some() && (by(Signal::TERM) || by(Signal::KILL) && self.one_did_not_listen());
        !status.success() && status.code() != Some(Code::Interrupted as i32) && !stopped
    }

    /// Whether SIGTERM killed a worker that had not installed its handler yet.
    fn one_did_not_listen(&self) -> bool {
        self.ended.iter().flatten().any(|status| status.signal() == Some(Signal::TERM.as_raw()))
    }

    fn signal(&self, signal: Signal) {
        for (child, ended) in self.children.iter().zip(&self.ended) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let (Some(pid), None) = (pid, ended) {
                // One that has just ended is as told.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// One line, after the last lines of the worker's own log.
    fn describe(&self, end: &WorkerEnd) -> String {
        let WorkerEnd { rank, status, .. } = end;
        if *rank > 0 {
            let path = self.log_path(*rank);
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            if !last.is_empty() {
                eprintln!("the end of {}:", path.display());
                last.iter().for_each(|line| eprintln!("    {line}"));
            }
        }
        match (status.signal(), status.code()) {
            _ if self.hung == Some(*rank) => format!("rank {rank} hung, and was killed"),
            (Some(signal), _) => format!("rank {rank} was killed by signal {signal}"),
            (None, code) => format!("rank {rank} ended with exit code {}", code.unwrap_or(-1)),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_whose_end_cannot_be_learned_has_failed() {
        let child = Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Waited for by somebody else: its status is gone.
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
        let mut workers = Workers {
            children: vec![child],
            ended: vec![None],
            logs: PathBuf::new(),
            store: StoreServer::start().unwrap(),
            stopped: None,
            hung: None,
        };
        let end = workers.wait_for_all(&AtomicBool::new(false)).unwrap();
        assert_eq!((end.rank, end.code), (0, Code::Failed));
    }
}
