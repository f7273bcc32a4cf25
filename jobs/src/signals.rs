//! Signals that mean: save, and leave.
use std::sync::{Arc, atomic::AtomicBool};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    flag,
};

use crate::failure::{Code, Failure, Result};

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
    register().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    Ok(stop)
}
