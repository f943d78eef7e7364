//! `config`: whether a renewal needs the certificate of the login.

use api::Reply;
use pipeline::{Authorized, EngineError, Operation, Txn};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::input::Input;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Config {
    /// A token is renewed without its certificate.
    pub(super) disable_binding: bool,
}

impl Config {
    pub(super) async fn load(txn: &mut Txn) -> Result<Self, EngineError> {
        let Some(entry) = txn.get(PLACE).await? else { return Ok(Self::default()) };
        serde_json::from_slice(entry.expose()).map_err(EngineError::internal)
    }
}

pub(super) async fn answer(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    let mut config = Config::load(txn).await?;
    match request.operation() {
        Operation::Read => Ok(Reply::data(&json!({
            "disable_binding": config.disable_binding,
            "enable_identity_alias_metadata": false,
            "ocsp_cache_size": 0,
        }))),
        Operation::Create | Operation::Update => {
            let input = Input::of(request.body())?;
            // Policies could be written against metadata that would never be there.
            if input.flag("enable_identity_alias_metadata")? == Some(true) {
                return Err(EngineError::bad_request("enable_identity_alias_metadata is not supported"));
            }
            config.disable_binding = input.flag("disable_binding")?.unwrap_or(config.disable_binding);
            let entry = serde_json::to_vec(&config).map_err(EngineError::internal)?;
            txn.put(PLACE, SecretBytes::new(entry))?;
            Ok(Reply::no_content())
        }
        Operation::List | Operation::Delete | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

const PLACE: &str = "config";
