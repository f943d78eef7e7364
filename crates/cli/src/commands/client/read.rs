//! `edgekeep read`.

use api::Operation;
use client::Vault;

use super::answer::Answer;
use super::session::Session;
use crate::failure::Failure;

/// Example: edgekeep read -field=password secret/edgex/core-data/redisdb
#[derive(clap::Args)]
pub(crate) struct Read {
    /// The path, from the mount on.
    path: String,
}

pub(super) async fn run<V: Vault>(read: &Read, session: &Session<V>) -> Result<Answer, Failure> {
    let reply = session.call(Operation::Read, &read.path, None).await?;
    Ok(Answer::reply(reply, || format!("Nothing to show at: {}", read.path)))
}
