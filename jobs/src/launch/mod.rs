//! Which processes run a recipe: one, those that this program starts (`--nproc`), or those that torchrun or srun started.
pub mod device;
mod environment;
mod supervisor;
pub mod team;

use std::time::Duration;
use std::{env, thread};

pub use environment::Rendezvous;
pub use supervisor::supervise;
use supervisor::{PEER, SUPERVISOR};

use crate::common::failure::{Failure, Result};
use crate::recipe::Device;

/// Seconds after which a peer that does not answer is an error.
const TIMEOUT: &str = "NOTAGEN_TRAIN_TIMEOUT";
/// Processes that are allowed on a CPU, however few cores it has.
const MOST_CPU_PROCESSES: usize = 64;

/// What this process is to do.
#[derive(Debug)]
pub enum Role {
    /// The whole recipe.
    Alone,
    /// To start this many workers, and to supervise them.
    Supervisor(usize),
    /// The part of one rank.
    Worker(Rendezvous),
}

/// The role, from the command line and the environment.
///
/// # Errors
/// Usage failures: what command line and environment say does not go together.
pub fn role(processes: Option<u32>, sharded: bool, device: Device) -> Result<Role> {
    timeout()?;
    let place = environment::find(|name| env::var(name).ok())?.filter(|place| place.size > 1);
    match (place, processes) {
        (Some(place), Some(nproc)) if !is_supervised() => Err(Failure::usage(format!(
            "--nproc {nproc}: the environment has {} processes already, and this is rank {} of them ({})",
            place.size, place.rank, place.source
        ))
        .hint("torchrun and srun start the processes themselves: leave --nproc out")),
        (Some(_), _) if sharded => Err(Failure::usage("--shard: a share of a stage is run by one process")
            .hint("srun --ntasks=1, or without --shard")),
        (Some(place), _) => Ok(Role::Worker(place)),
        (None, Some(0)) => Err(Failure::usage("--nproc 0: there is nobody to do the work")),
        (None, nproc) => {
            let devices = device::count(device);
            let nproc = nproc.map_or(devices.max(1), |nproc| nproc as usize);
            if devices > 0 && nproc > devices {
                return Err(Failure::usage(format!("--nproc {nproc}: this machine has {devices} CUDA devices"))
                    .hint("a process a device; device: cpu does without"));
            }
            let cores = thread::available_parallelism().map_or(1, usize::from);
            if devices == 0 && nproc > MOST_CPU_PROCESSES.max(4 * cores) {
                return Err(Failure::usage(format!("--nproc {nproc}: this machine has {cores} cores"))
                    .hint("a process uses several cores: fewer processes do as much"));
            }
            Ok(if nproc > 1 && !sharded { Role::Supervisor(nproc) } else { Role::Alone })
        }
    }
}

/// Whether `--nproc` started this process.
fn is_supervised() -> bool {
    env::var_os(SUPERVISOR).is_some()
}

/// Marks a failure that another process caused, so that the supervisor does not take it for the cause.
pub fn of_peer(failure: Failure) -> Failure {
    if is_supervised() { failure.exit_with(PEER) } else { failure }
}

/// A supervised worker saves and leaves when its supervisor is gone.
///
/// # Errors
/// An interruption: it is gone already.
pub fn follow_supervisor() -> Result<()> {
    let Ok(supervisor) = env::var(SUPERVISOR) else { return Ok(()) };
    // Without it a worker ends a little later: when it next needs what the supervisor keeps.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // The system tells of no end that was before.
    if rustix::process::getppid().is_some_and(|parent| parent.as_raw_nonzero().to_string() == supervisor) {
        return Ok(());
    }
    Err(Failure::interrupted(format!("process {supervisor}, which started this one, is gone; all is saved"))
        .hint("the same command goes on from here"))
}

/// After how long a peer that does not answer is an error.
pub fn timeout() -> Result<Duration> {
    match env::var(TIMEOUT) {
        Err(_) => Ok(Duration::from_secs(600)),
        Ok(text) => match text.parse() {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            _ => Err(Failure::usage(format!("{TIMEOUT}={text}: it is a number of seconds above 0"))),
        },
    }
}
