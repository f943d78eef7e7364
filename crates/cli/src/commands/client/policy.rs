//! `edgekeep policy`.

use std::io::Read;

use api::{Body, Operation};
use clap::{Args, Subcommand};
use client::Vault;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::session::Session;
use super::{list, pairs};
use crate::failure::Failure;

/// Example: edgekeep policy write technician technician.hcl
#[derive(Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the text of a policy.
    Read {
        /// Its name.
        name: String,
    },
    /// Write a policy, HCL or JSON.
    Write {
        /// Its name.
        name: String,
        /// The file with its text; - reads standard input.
        file: String,
    },
    /// List the names of all policies.
    List,
    /// Delete a policy.
    Delete {
        /// Its name.
        name: String,
    },
}

pub(super) async fn run<V: Vault>(
    policy: &Policy,
    session: &Session<V>,
    stdin: &mut dyn Read,
) -> Result<Answer, Failure> {
    let path = |name: &str| format!("sys/policies/acl/{name}");
    match &policy.action {
        Action::Read { name } => {
            let reply = session.call(Operation::Read, &path(name), None).await?;
            #[derive(Deserialize)]
            struct Kept {
                policy: String,
            }
            let kept = reply.data_text().and_then(|d| serde_json::from_slice::<Kept>(d).ok());
            let kept = kept.ok_or_else(|| Failure::fault("the store answers with no policy"))?;
            Ok(Answer::text("policy", kept.policy))
        }
        Action::Write { name, file } => {
            let bytes = if file == "-" { pairs::read_all(stdin, "standard input")? } else { pairs::read_file(file)? };
            let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the policy is not UTF-8 text"))?;
            let body = Body::new(Zeroizing::new(json!({ "policy": text }).to_string().into_bytes()));
            let reply = session.call(Operation::Write, &path(name), Some(body)).await?;
            Ok(Answer::reply(reply, || format!("Success! Uploaded policy: {name}")))
        }
        Action::List => list::names(&session.call(Operation::List, "sys/policies/acl", None).await?),
        Action::Delete { name } => {
            session.call(Operation::Delete, &path(name), None).await?;
            Ok(Answer::done(format!("Success! Deleted policy: {name}")))
        }
    }
}
