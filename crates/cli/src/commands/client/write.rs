//! `edgekeep write`.

use std::io::Read;

use api::Operation;
use client::Vault;

use super::answer::Answer;
use super::pairs;
use super::session::Session;
use crate::failure::Failure;

/// Example: edgekeep write auth/userpass/users/technician password=- token_policies=default < password.txt
#[derive(clap::Args)]
pub(crate) struct Write {
    /// Write even without data, as some paths want it.
    #[arg(long, short)]
    force: bool,
    /// The path, from the mount on.
    path: String,
    /// key=value, key=@file, key=- (standard input); or @file or - for a whole JSON object.
    #[arg(value_name = "KEY=VALUE")]
    data: Vec<String>,
}

pub(super) async fn run<V: Vault>(
    write: &Write,
    session: &Session<V>,
    stdin: &mut dyn Read,
) -> Result<Answer, Failure> {
    if write.data.is_empty() && !write.force {
        return Err(Failure::usage("there is nothing to write").hint("give key=value, or --force to write nothing"));
    }
    let body = pairs::body(&write.data, stdin)?;
    let reply = session.call(Operation::Write, &write.path, Some(body)).await?;
    Ok(Answer::reply(reply, || format!("Success! Data written to: {}", write.path)))
}
