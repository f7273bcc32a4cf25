//! Signals that mean: save, and leave.
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use crate::common::failure::{Code, Failure, Result};

/// A flag that SIGTERM, SIGUSR1 and SIGINT raise. A second SIGINT ends the process at once: the last checkpoint
/// stands.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let register = || -> std::io::Result<()> {
        flag::register_conditional_shutdown(SIGINT, Code::Interrupted as i32, Arc::clone(&stop))?;
        for signal in [SIGTERM, SIGUSR1, SIGINT] {
            flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(())
    };
    register().map_err(cannot_listen)?;
    Ok(stop)
}

/// Ends the process at once. Libtorch's own clean-up is left out: it crashes where a thread is still inside libtorch.
pub fn leave(code: u8) -> ! {
    // What cannot be written any more is lost either way.
    let _ = io::stdout().flush();
    low_level::exit(code.into())
}

/// While the returned flag is set, the same signals end the process at once, as if no handler were installed.
pub fn end_at_once() -> Result<Arc<AtomicBool>> {
    let at_once = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGUSR1, SIGINT] {
        flag::register_conditional_default(signal, Arc::clone(&at_once)).map_err(cannot_listen)?;
    }
    Ok(at_once)
}

/// Fails with an interruption once the flag is set.
pub fn check_stop(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(()) }
}

/// The interruption of work that has nothing left to save.
pub fn stopped() -> Failure {
    Failure::interrupted("stopped by a signal; all is saved").hint("the same command goes on from here")
}

fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen for signals: {error}"))
}
