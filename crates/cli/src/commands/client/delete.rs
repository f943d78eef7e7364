//! `edgekeep delete`.

use api::Operation;
use client::Vault;

use super::answer::Answer;
use super::session::Session;
use crate::failure::Failure;

/// Example: edgekeep delete secret/edgex/core-data/old
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// The path, from the mount on.
    path: String,
}

pub(super) async fn run<V: Vault>(delete: &Delete, session: &Session<V>) -> Result<Answer, Failure> {
    let reply = session.call(Operation::Delete, &delete.path, None).await?;
    Ok(Answer::reply(reply, || format!("Success! Data deleted (if it existed) at: {}", delete.path)))
}
