//! `edgekeep list`.

use api::{Operation, Reply};
use client::Vault;
use serde::Deserialize;

use super::answer::Answer;
use super::session::Session;
use crate::failure::Failure;

/// Example: edgekeep list secret/edgex/core-data
#[derive(clap::Args)]
pub(crate) struct List {
    /// The folder, from the mount on.
    path: String,
}

pub(super) async fn run<V: Vault>(list: &List, session: &Session<V>) -> Result<Answer, Failure> {
    let reply = session.call(Operation::List, &list.path, None).await?;
    names(&reply)
}

/// The names in a reply to a list.
pub(super) fn names(reply: &Reply) -> Result<Answer, Failure> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(default)]
        keys: Vec<String>,
    }
    let data = reply.data_text().unwrap_or(b"{}");
    let listed: Listed =
        serde_json::from_slice(data).map_err(|_| Failure::fault("the store answers a list with no list"))?;
    Ok(Answer::names(listed.keys))
}
