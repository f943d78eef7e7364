//! Commands in the habit of `vault` and `bao`.

use std::ffi::OsString;

use clap::Subcommand;

use crate::failure::Failure;

#[derive(Subcommand)]
pub(crate) enum ClientCommand {}

pub(crate) fn normalise(arguments: Vec<OsString>) -> Vec<OsString> {
    arguments
}

pub(super) async fn run(command: ClientCommand) -> Result<(), Failure> {
    match command {}
}
