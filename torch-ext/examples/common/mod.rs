//! What the examples of all crates share: `--name value` arguments, a clock, and how they end.
#![allow(dead_code)] // no example needs all of it

use std::process::ExitCode;
use std::str::FromStr;
use tch::{Device, Kind};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Runs an example, and prints its error.
pub fn run(name: &str, measure: impl FnOnce(&Arguments) -> Outcome<()>) -> ExitCode {
    match measure(&Arguments(std::env::args().skip(1).collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The words behind the example's name.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// All of them.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// What stands behind `--name`.
    pub fn get<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.chunks_exact(2).find(|pair| pair[0] == name).map_or(default, |pair| &pair[1])
    }

    /// The same as a number.
    pub fn number<T: FromStr>(&self, name: &str, default: &str) -> Outcome<T> {
        let text = self.get(name, default);
        text.parse().map_err(|_| format!("{name} is {text}, and no number of its kind").into())
    }

    /// `--device`: auto, cpu or cuda.
    pub fn device(&self, default: &str) -> Outcome<Device> {
        Ok(torch_ext::device_named(self.get("--device", default))?)
    }

    /// `--precision`: fp32, bf16 or fp16.
    pub fn precision(&self) -> (&str, Kind) {
        match self.get("--precision", "fp32") {
            "bf16" => ("bf16", Kind::BFloat16),
            "fp16" => ("fp16", Kind::Half),
            other => (other, Kind::Float),
        }
    }

    /// Sets libtorch's threads to `--threads`, where given.
    pub fn set_threads(&self) -> Outcome<()> {
        match self.number("--threads", "0")? {
            0 => (),
            threads => tch::set_num_threads(threads),
        }
        Ok(())
    }

    /// `--clock`: wall, or cpu for a machine that others use too.
    pub fn clock(&self) -> Clock {
        Clock { cpu: self.get("--clock", "wall") == "cpu" }
    }
}

/// Measures the time of day, or that of this thread.
#[derive(Clone, Copy, Default)]
pub struct Clock {
    cpu: bool,
}

impl Clock {
    /// `cpu` or `wall`.
    pub fn name(self) -> &'static str {
        if self.cpu { "cpu" } else { "wall" }
    }

    /// Seconds of the wall clock, or that this thread has run.
    pub fn now(self) -> f64 {
        let run =
            || std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse::<f64>().ok();
        if self.cpu
            && let Some(nanoseconds) = run()
        {
            return nanoseconds / 1e9;
        }
        std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
    }
}
