//! `notagen-train`: recipes and the commands around them.
mod atomic;
mod cli;
mod commands;
mod cost;
mod device;
mod failure;
mod fingerprint;
mod hub;
mod launch;
mod loading;
mod lock;
mod near;
mod plan;
mod progress;
mod provenance;
mod recipe;
mod released;
mod report;
mod resolve;
mod rounds;
mod runner;
mod scaling;
mod settings;
mod signals;
mod stages;
mod state;
mod submit;
mod summary;
mod table;
mod team;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::{
    cli::{Cli, Command},
    failure::{Failure, Result},
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return misread(&error).report(std::env::args().any(|word| word == "--json")),
    };
    let json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli) -> Result<()> {
    let json = cli.json;
    match cli.command {
        None if cli.run.recipe.is_none() => {
            let _ = Cli::command().print_help();
            Err(Failure::usage("no recipe is given").hint("notagen-train recipes/quickstart.yaml"))
        }
        None => {
            cli.run.recipe.as_deref().and_then(|path| path.to_str()).map_or(Ok(()), not_a_command)?;
            runner::run(&cli.run, json)
        }
        Some(Command::Run(args)) => runner::run(&args, json),
        Some(Command::Plan(args)) => commands::plan::run(&args, json),
        Some(Command::Validate { recipes }) => commands::validate::run(&recipes, json),
        Some(Command::Status { run, follow }) => commands::status::run(&run, follow, json),
        Some(Command::Report { run }) => commands::report::run(&run, json),
        Some(Command::Submit(args)) => submit::run(&args, json),
        Some(Command::Cancel { run }) => submit::cancel(&run),
        Some(Command::Convert(args)) => commands::convert::run(&args, json),
        Some(Command::Check { folder }) => commands::check::run(&folder, json),
        Some(Command::Preprocess(args)) => commands::preprocess::run(&args, json),
        Some(Command::Generate(args)) => commands::generate::run(&args, json),
        Some(Command::Logprob { weights, files, on }) => commands::logprob::run(&weights, &files, &on, json),
        Some(Command::Features(args)) => commands::features::run(&args, json),
        Some(Command::Score { reference, generated }) => commands::score::run(&reference, &generated, json),
        Some(Command::Prefer(args)) => commands::prefer::run(&args, json),
        Some(Command::Select(args)) => commands::select::run(&args, json),
        Some(Command::Weights { command }) => commands::weights::run(&command, json),
        Some(Command::Demo(args)) => commands::demo::run(&args, json),
        Some(Command::Doctor) => commands::doctor::run(json),
        Some(Command::Schema) => commands::schema::run(),
    }
}

/// A mistyped command looks like a recipe that is not there.
fn not_a_command(word: &str) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let commands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let is_recipe = word.contains(['/', '.']) || std::path::Path::new(word).exists();
    if is_recipe || word.starts_with('-') || commands.contains(&word) {
        return Ok(());
    }
    Err(Failure::usage(format!("`{word}` is neither a recipe nor a command")).hint(near::hint(word, commands)))
}

/// What is wrong with a command line that clap does not understand.
fn misread(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Failure::usage("what to do is left out").hint("add one of the commands above");
    }
    // clap takes a mistyped command for the recipe, and complains of what follows it.
    match std::env::args().nth(1).map(|word| not_a_command(&word)) {
        Some(Err(failure)) => failure,
        _ => command_line(error),
    }
}

/// One line of what clap says, and its tip.
fn command_line(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let first = lines.next().unwrap_or("the command line is wrong");
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    let mut tips = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("For more")) {
        match line.strip_prefix("tip: ") {
            Some(tip) => tips.push(tip.to_owned()),
            None => message = format!("{message} {line}"),
        }
    }
    if tips.is_empty() {
        tips.push("see notagen-train --help".to_owned());
    }
    Failure::usage(message).hint(tips.join("; "))
}
