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

use std::process::ExitCode;

use common::failure::Failure;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(cli)) => {
            let json = cli.json;
            cli::run(cli).map_or_else(|failure| exit(&failure, json), |()| ExitCode::SUCCESS)
        }
        Err(failure) => exit(&failure, std::env::args().any(|word| word == "--json")),
    }
}

fn exit(failure: &Failure, json: bool) -> ExitCode {
    failure.report(json);
    match failure.is_of_peer() && launch::is_supervised() {
        true => ExitCode::from(launch::PEER),
        false => ExitCode::from(failure.code() as u8),
    }
}
