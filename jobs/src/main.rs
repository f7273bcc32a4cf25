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

use common::signals;

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
            let ended = cli::run(cli);
            ended.map_or_else(|failure| failure.report(json), |()| DONE)
        }
        Err(failure) => failure.report(std::env::args().any(|word| word == "--json")),
    }
}
