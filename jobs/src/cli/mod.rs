//! The command line, and its commands, one file each.
mod arguments;
mod check;
mod convert;
mod demo;
mod doctor;
mod ending;
mod features;
mod generate;
mod logprob;
mod plan;
mod prefer;
mod preprocess;
mod report;
mod run;
mod schema;
mod score;
mod select;
mod status;
mod validate;
mod weights;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

pub use arguments::Cli;
use arguments::Command;

use crate::cluster;
use crate::common::failure::{Failure, Result};
use crate::common::nearest;

/// What the command line says; nothing if it asks for help, which is printed.
///
/// # Errors
/// A usage failure: what is wrong with it.
pub fn parse() -> Result<Option<Cli>> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = error.print();
            Ok(None)
        }
        Err(error) => Err(parse_failure(&error)),
    }
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<()> {
    let json = cli.json;
    match cli.command {
        None if cli.run.recipe.is_none() => {
            let _ = Cli::command().print_help();
            Err(Failure::usage("no recipe is given").hint("notagen-train recipes/quickstart.yaml"))
        }
        None => {
            cli.run.recipe.as_deref().and_then(|path| path.to_str()).map_or(Ok(()), not_a_command)?;
            run::run(&cli.run, json)
        }
        Some(Command::Run(args)) => run::run(&args, json),
        Some(Command::Plan(args)) => plan::run(&args, json),
        Some(Command::Validate { recipes }) => validate::run(&recipes, json),
        Some(Command::Status { run, follow }) => status::run(&run, follow, json),
        Some(Command::Report { run }) => report::run(&run, json),
        Some(Command::Submit(args)) => cluster::run(&args, json),
        Some(Command::Cancel { run }) => cluster::cancel(&run),
        Some(Command::Convert(args)) => convert::run(&args, json),
        Some(Command::Check { folder }) => check::run(&folder, json),
        Some(Command::Preprocess(args)) => preprocess::run(&args, json),
        Some(Command::Generate(args)) => generate::run(&args, json),
        Some(Command::Logprob { weights, files, on }) => logprob::run(&weights, &files, &on, json),
        Some(Command::Features(args)) => features::run(&args, json),
        Some(Command::Score { reference, generated }) => score::run(&reference, &generated, json),
        Some(Command::Prefer(args)) => prefer::run(&args, json),
        Some(Command::Select(args)) => select::run(&args, json),
        Some(Command::Weights { command }) => weights::run(&command, json),
        Some(Command::Demo(args)) => demo::run(&args, json),
        Some(Command::Doctor) => doctor::run(json),
        Some(Command::Schema) => schema::run(),
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
    Err(Failure::usage(format!("`{word}` is neither a recipe nor a command")).hint(nearest::hint(word, commands)))
}

/// What is wrong with a command line that clap does not understand.
fn parse_failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Failure::usage("what to do is left out").hint("add one of the commands above");
    }
    // clap takes a mistyped command for the recipe, and complains of what follows it.
    match std::env::args().nth(1).map(|word| not_a_command(&word)) {
        Some(Err(failure)) => failure,
        _ => one_line(error),
    }
}

/// One line of what clap says, and its tip.
fn one_line(error: &clap::Error) -> Failure {
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
