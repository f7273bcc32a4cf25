//! `notagen-train`: recipes and the commands around them. Failures become exit codes here, and nowhere else.
mod cli;
mod cluster;
mod common;
mod hub;
mod launch;
mod plan;
mod recipe;
mod report;
mod run;
mod stages;

use common::{failure::Failure, signals};

const DONE: u8 = 0;

fn main() {
    signals::leave(execute())
}

/// Everything, with the exit code to leave with.
fn execute() -> u8 {
    match cli::parse() {
        Ok(None) => DONE,
        Ok(Some(cli)) => {
            let json = cli.json;
            cli::run(cli).map_or_else(|failure| told(&failure, json), |()| DONE)
        }
        Err(failure) => told(&failure, std::env::args().any(|word| word == "--json")),
    }
}

fn told(failure: &Failure, json: bool) -> u8 {
    failure.report(json);
    match failure.is_of_peer() && launch::is_supervised() {
        true => launch::PEER,
        false => failure.code() as u8,
    }
}
