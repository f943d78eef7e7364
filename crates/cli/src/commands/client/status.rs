//! `edgekeep status`.

use std::path::PathBuf;

use api::{Operation, Payload};
use client::Vault;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::admin;
use super::answer::Answer;
use super::session::Session;
use crate::failure::{Code, Failure};

/// Example: edgekeep status -format=json
#[derive(clap::Args)]
pub(crate) struct Status {}

/// Exit code 0: open. 2: sealed, or not yet made.
pub(super) async fn run<V: Vault>(session: &Session<V>) -> Result<Answer, Failure> {
    let reply = session.call(Operation::Read, "sys/seal-status", None).await?;
    let Payload::Raw { bytes, .. } = &reply.payload else {
        return Err(
            Failure::fault("the store does not tell its state").hint("look which program answers at this address")
        );
    };
    let state: Value =
        serde_json::from_slice(bytes).map_err(|_| Failure::fault("the state of the store is no JSON"))?;
    let is = |key: &str| state.get(key).and_then(Value::as_bool);
    let (initialized, sealed) = (is("initialized").unwrap_or(false), is("sealed").unwrap_or(true));
    let not_ready = match (initialized, sealed) {
        (true, false) => None,
        (true, true) => Some(("the store is sealed", "edgekeep's log tells why; `edgekeep recover` opens it")),
        (false, _) => Some(("the store is not yet made", "`edgekeep up` makes it")),
    };
    let known = ["type", "initialized", "sealed", "t", "n", "progress", "recovery_seal", "version", "storage_type"];
    let rows: serde_json::Map<String, Value> =
        known.iter().filter_map(|key| Some(((*key).to_owned(), state.get(*key)?.clone()))).collect();
    let rows = Zeroizing::new(json!(rows).to_string().into_bytes());
    let answer = Answer::reply(reply, String::new).with_rows(rows);
    Ok(match not_ready {
        None => answer,
        Some((fact, hint)) => answer.failing(Failure::new(Code::NotReady, fact).hint(hint)),
    })
}

/// What the edgekeep of this run directory says of itself, if it runs and answers to us.
pub(super) async fn by_the_admin_socket(run_dir: PathBuf) -> Option<Failure> {
    let told = admin::status(&admin::Place::of(run_dir)).await.ok()?;
    let fact = match told["state"].as_str()? {
        "sealed" => "the store is sealed",
        "shut" => "the gates are shut",
        "starting" => "edgekeep is starting",
        // It has opened meanwhile, or listens nowhere that we can reach: the refusal of before says more.
        _ => return None,
    };
    let fact = match told["reason"].as_str() {
        Some(reason) => format!("{fact}: {reason}"),
        None => fact.to_owned(),
    };
    Some(
        Failure::new(Code::NotReady, fact)
            .hint("`edgekeep doctor` tells more; `edgekeep recover` opens a sealed store"),
    )
}
