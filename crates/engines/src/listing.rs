//! The reply to a list. A folder with nothing in it is not there: Vault answers 404.

use api::Reply;
use pipeline::EngineError;
use serde_json::{Map, Value, json};

/// What is there.
///
/// # Errors
/// [`EngineError::absent`] if nothing is.
pub(crate) fn listed(keys: Vec<String>) -> Result<Reply, EngineError> {
    if keys.is_empty() { Err(EngineError::absent()) } else { Ok(Reply::data(&json!({ "keys": keys }))) }
}

/// What is there, and something about each.
///
/// # Errors
/// As [`listed`].
pub(crate) fn listed_with(keys: Vec<String>, info: Map<String, Value>) -> Result<Reply, EngineError> {
    if keys.is_empty() {
        return Err(EngineError::absent());
    }
    Ok(Reply::data(&json!({ "keys": keys, "key_info": info })))
}
