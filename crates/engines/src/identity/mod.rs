//! Who is behind the tokens: entities, their names at the auth mounts, and signed statements about them (OIDC tokens).
//!
//! ```text
//! entity    entity/id/:id  entity/name/:n    alias  entity-alias  entity-alias/id/:id    lookup/entity
//! oidc      key/:n  role/:n  token/:role  introspect  config  .well-known/openid-configuration  .well-known/keys
//! ```
//! The same value is the pipeline's [`pipeline::Directory`]: policies of an entity count as they are now, not as they
//! were when a token was made.

mod alias;
mod directory;
mod entity;
mod lookup;
mod oidc;

use std::sync::Arc;

use api::{Reply, Uuid};
use pipeline::{Access, Authorized, BoxFuture, Engine, EngineError, Mounts, Operation, Outcome, Txn};

/// The engine `identity`.
#[derive(Debug)]
pub struct Identity {
    mounts: Arc<Mounts>,
}

impl Identity {
    /// `mounts` tells which accessors there are.
    pub fn new(mounts: Arc<Mounts>) -> Self {
        Self { mounts }
    }
}

impl Engine for Identity {
    fn kind(&self) -> &'static str {
        "identity"
    }

    fn access(&self, operation: api::Operation, path: &str) -> Access {
        match (operation, path) {
            (api::Operation::Read, oidc::DISCOVERY | oidc::KEYS) => Access::Anonymous,
            _ => Access::Ordinary,
        }
    }

    fn kept_as(&self, path: &str) -> Option<String> {
        let kept = path.strip_prefix("entity/name/")?.to_lowercase();
        Some(format!("entity/name/{kept}")).filter(|kept| kept != path)
    }

    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(async move { Ok(self.route(request, txn).await?.into()) })
    }
}

impl Identity {
    async fn route(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        let path = request.path();
        // A list comes with its slash.
        let plain = if request.operation() == Operation::List { path.trim_end_matches('/') } else { path };
        match plain.split_once('/') {
            None if plain == "entity" => self.entity_any(request, txn).await,
            None if plain == "entity-alias" => self.alias_any(request, txn).await,
            Some(("entity", "id")) => self.entity_ids(request, txn).await,
            Some(("entity", "name")) => self.entity_names(request, txn).await,
            Some(("entity", rest)) => match rest.split_once('/') {
                Some(("id", id)) => self.entity_by_id(segment(id)?, request, txn).await,
                Some(("name", name)) => self.entity_by_name(segment(name)?, request, txn).await,
                _ => Err(EngineError::unsupported_path()),
            },
            Some(("entity-alias", "id")) => self.alias_ids(request, txn).await,
            Some(("entity-alias", rest)) => match rest.split_once('/') {
                Some(("id", id)) => self.alias_by_id(segment(id)?, request, txn).await,
                _ => Err(EngineError::unsupported_path()),
            },
            Some(("lookup", "entity")) => self.lookup_entity(request, txn).await,
            Some(("oidc", rest)) => oidc::route(rest, request, txn).await,
            _ => Err(EngineError::unsupported_path()),
        }
    }
}

/// A name or id in a path: one segment, bounded.
fn segment(text: &str) -> Result<&str, EngineError> {
    let sound = !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.contains('/');
    sound.then_some(text).ok_or_else(EngineError::unsupported_path)
}

/// A name in a body: what could stand in a path, for it becomes one.
fn sound_name(text: &str) -> Result<&str, EngineError> {
    let sound =
        !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.contains('/') && !text.contains(char::is_control);
    sound
        .then_some(text)
        .ok_or_else(|| EngineError::bad_request("a name has 1 to 256 bytes, no slash and no control character"))
}

/// A random UUID (RFC 9562, version 4).
fn new_id(txn: &Txn) -> String {
    let mut bytes = [0; 16];
    txn.fill(&mut bytes);
    Uuid::from_random(bytes).to_string()
}

const MAX_NAME_BYTES: usize = 256;
