//! Reads the numbers of steps once in `log_every`, and logs their means.
use crate::callbacks::Callback;
use crate::training::Training;
use crate::{Objective, Result, TrainEvent};
use tch::Device;

/// The most steps whose numbers are on the device, however rarely is logged.
const MAX_IN_FLIGHT: usize = 256;

/// Whether the exchange of gradients has been logged: it is once.
#[derive(Default)]
pub(crate) struct Metrics {
    exchange_logged: bool,
}

impl<O: Objective> Callback<O> for Metrics {
    fn after_step(&mut self, training: &mut Training<O>) -> Result<()> {
        let step = training.state.position.step;
        let logs = training.is_last_step() || step.is_multiple_of(training.settings.log_every);
        if logs || training.in_flight.len() == MAX_IN_FLIGHT {
            training.read_numbers()?;
        }
        if !logs {
            return Ok(());
        }
        let (event, warning) = means(training)?;
        training.telemetry.event(&event)?;
        if let Some(message) = warning {
            training.telemetry.event(&TrainEvent::Warning { step, message })?;
        }
        if !std::mem::replace(&mut self.exchange_logged, true)
            && let Some(exchange) = training.optimizer.exchange()
        {
            training.telemetry.event(&TrainEvent::Exchange { step, exchange })?;
        }
        Ok(())
    }
}

/// The event of the steps since the last one, and what the objective warns of. A new log window begins.
fn means<O: Objective>(training: &mut Training<O>) -> Result<(TrainEvent, Option<String>)> {
    let (memory, memory_peak) = match training.optimizer.device() {
        Device::Cpu => torch_ext::process_memory().map(|memory| (memory.resident, memory.peak))?,
        device => torch_ext::device_memory(device).map(|memory| (memory.allocated, memory.peak))?,
    };
    let (settings, last) = (training.settings, &training.last);
    let speed = std::mem::take(&mut training.speed);
    let elapsed = speed.elapsed.as_secs_f64();
    let peak = settings.peak.map(|peak| peak * settings.ranks.size() as f64);
    let (loss, values) = std::mem::take(&mut training.state.window).means();
    let values = O::VALUES.iter().map(|&name| name.to_owned()).zip(values).collect();
    let warning = training.objective.warning(&values);
    let event = TrainEvent::Step {
        step: training.state.position.step,
        epoch: training.state.position.current_epoch(),
        loss,
        learning_rate: last.learning_rate,
        grad_norm: last.grad_norm,
        scale: last.scale,
        patches_per_second: speed.work.patches / elapsed,
        tokens_per_second: speed.work.tokens / elapsed,
        mfu: peak.map(|peak| speed.work.operations / elapsed / peak),
        data_wait: speed.waited.as_secs_f64() / elapsed,
        memory,
        memory_peak,
        skipped: training.state.position.skipped,
        seconds: training.clock.seconds(),
        values,
    };
    Ok((event, warning))
}
