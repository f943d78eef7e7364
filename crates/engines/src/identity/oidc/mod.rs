//! Signed tokens about entities, for those who do not talk to the store.
//!
//! ```text
//! key.rs       who signs, and rotation            template.rs  claims of an entity
//! role.rs      for whom, with what, how long      jws.rs       the form of a token
//! token.rs     issue, introspect, publish
//! ```

mod jws;
mod key;
mod role;
mod template;
mod token;

use api::Reply;
use pipeline::{Authorized, EngineError, Operation, Txn};
use secret::SecretBytes;
use serde_json::json;

use super::entity::only_list;
use super::segment;
use crate::input::Input;
use crate::listing::listed;

/// Carries out a request below `oidc/`.
pub(super) async fn route(path: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    match path.split_once('/') {
        None if path == "key" => key::all(request, txn).await,
        None if path == "role" => role::all(request, txn).await,
        None if path == "introspect" => token::introspect(request, txn).await,
        None if path == "config" => config(request, txn).await,
        Some((".well-known", "openid-configuration")) => token::discovery(request, txn).await,
        Some((".well-known", "keys")) => token::keys(request, txn).await,
        Some(("role", name)) => role::one(segment(name)?, request, txn).await,
        Some(("token", name)) => token::issue(segment(name)?, request, txn).await,
        Some(("key", rest)) => match rest.split_once('/') {
            None => key::one(segment(rest)?, request, txn).await,
            Some((name, "rotate")) => key::rotate(segment(name)?, request, txn).await,
            Some(_) => Err(EngineError::unsupported_path()),
        },
        _ => Err(EngineError::unsupported_path()),
    }
}

/// `oidc/config`.
async fn config(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    match request.operation() {
        Operation::Read => Ok(Reply::data(&json!({ "issuer": configured(txn).await? }))),
        Operation::Create | Operation::Update => {
            let issuer = Input::of(request.body())?.text("issuer")?.unwrap_or_default();
            let sound = issuer.is_empty()
                || (issuer.len() <= MAX_ISSUER_BYTES
                    && (issuer.starts_with("https://") || issuer.starts_with("http://"))
                    && !issuer.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')));
            if !sound {
                return Err(EngineError::bad_request(
                    "invalid issuer, which must include only a scheme, host, port, and path",
                ));
            }
            let kept = issuer.trim_end_matches('/').as_bytes().to_vec();
            if kept.is_empty() {
                txn.delete(CONFIG)?
            } else {
                txn.put(CONFIG, SecretBytes::new(kept))?
            }
            Ok(Reply::no_content())
        }
        Operation::Delete | Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

async fn configured(txn: &mut Txn) -> Result<String, EngineError> {
    let Some(entry) = txn.get(CONFIG).await? else { return Ok(String::new()) };
    Ok(std::str::from_utf8(entry.expose()).map_err(EngineError::internal)?.to_owned())
}

/// `iss`. Without a configured address it is the path alone, which is what EdgeX's services compare with.
async fn issuer(txn: &mut Txn) -> Result<String, EngineError> {
    Ok(format!("{}/v1/identity/oidc", configured(txn).await?))
}

async fn list_of(folder: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    only_list(request)?;
    listed(txn.list(folder).await?)
}

/// Below the mount, for whoever wants to check tokens: open to all.
pub(super) const DISCOVERY: &str = "oidc/.well-known/openid-configuration";
/// Likewise.
pub(super) const KEYS: &str = "oidc/.well-known/keys";
/// A claim of ours: when a token ends, in milliseconds of the store's time.
const STORE_EXPIRY: &str = "edgekeep_exp";
const CONFIG: &str = "oidc/config";
const MAX_ISSUER_BYTES: usize = 256;
