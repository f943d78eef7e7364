//! The executable `edgekeep`: arguments in, floors wired together, text and an exit code out.
//!
//! One file a command below `commands`. Only this crate prints, and only it knows exit codes: 0 done, 1 refused, 2
//! sealed or not ready, 64 usage or configuration, 70 our own fault.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commands;
mod edgex;
mod faces;
mod failure;
mod lacking;
mod locate;
mod maker;
mod output;
mod process;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Code;

/// The keeper of secrets for edge devices.
#[derive(Parser)]
#[command(name = "edgekeep", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    // First of all: no secret of ours may end in a core dump.
    process::harden();
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if let Some(face) = arguments.first().and_then(faces::of) {
        return edgex::run(face, arguments);
    }
    if arguments.first().is_some_and(faces::is_hook) {
        return commands::ikm::as_hook().map_or_else(|failure| failure::report(&failure), |()| ExitCode::SUCCESS);
    }
    arguments = commands::client::normalise(arguments);
    let outcome = match Cli::try_parse_from(arguments) {
        Ok(cli) => commands::run(cli.command),
        Err(e) if !e.use_stderr() => {
            output::line(&e.render().to_string());
            Ok(())
        }
        Err(e) => {
            output::error(e.render().to_string().trim_end());
            return ExitCode::from(Code::Usage as u8);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure::report(&failure),
    }
}
