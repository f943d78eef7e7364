//! `crls/:list`: certificates that were taken back, by their serial numbers.
//!
//! As in Vault a serial number counts whoever signed the list and whoever signed the certificate: where two authorities
//! give the same number, the other's certificate is refused as well.

use api::Reply;
use pipeline::{Authorized, EngineError, Operation, Txn};
use pki::peer::revoked;
use secret::SecretBytes;
use serde_json::{Map, Value, json};

use crate::input::Input;

/// Whether one of these serial numbers is in a list.
pub(super) async fn is_revoked(serials: &[String], txn: &mut Txn) -> Result<bool, EngineError> {
    for name in txn.list(FOLDER).await? {
        let revoked = load(&name, txn).await?.unwrap_or_default();
        if serials.iter().any(|serial| revoked.binary_search(serial).is_ok()) && host::in_force("peer-revocation") {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) async fn answer(name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    let absent = || EngineError::bad_request(format!("no such CRL {name}"));
    match request.operation() {
        Operation::Read => {
            let serials = load(name, txn).await?.ok_or_else(absent)?;
            let serials: Map<String, Value> = serials.into_iter().map(|serial| (serial, json!({}))).collect();
            Ok(Reply::data(&json!({ "serials": serials })))
        }
        Operation::Create | Operation::Update => {
            let input = Input::of(request.body())?;
            if input.has("url") {
                return Err(EngineError::bad_request("edgekeep fetches no CRL; send it in 'crl'"));
            }
            let text = input
                .text("crl")?
                .filter(|text| !text.is_empty())
                .ok_or_else(|| EngineError::bad_request("one of 'crl' or 'url' must be provided"))?;
            let serials = revoked(text.as_bytes())
                .map_err(|why| EngineError::bad_request(format!("failed to parse CRL: {why}")).because(why))?;
            if load(name, txn).await?.is_none() && txn.list(FOLDER).await?.len() >= MAX_LISTS {
                return Err(EngineError::bad_request("there are as many CRLs as a login looks through"));
            }
            let entry = serde_json::to_vec(&serials).map_err(EngineError::internal)?;
            txn.put(&place(name), SecretBytes::new(entry))?;
            Ok(Reply::no_content())
        }
        Operation::Delete => {
            load(name, txn).await?.ok_or_else(absent)?;
            txn.delete(&place(name))?;
            Ok(Reply::no_content())
        }
        Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

/// Its serial numbers, sorted.
async fn load(name: &str, txn: &mut Txn) -> Result<Option<Vec<String>>, EngineError> {
    let Some(entry) = txn.get(&place(name)).await? else { return Ok(None) };
    serde_json::from_slice(entry.expose()).map(Some).map_err(EngineError::internal)
}

fn place(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

pub(super) const FOLDER: &str = "crl";
/// Of 4096 serial numbers each (`pki::peer::MAX_REVOKED`): one for each authority of a site.
const MAX_LISTS: usize = 16;
