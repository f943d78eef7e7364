//! `lookup/entity`: an entity by any of its names. 204 when there is none, as in Vault.

use api::Reply;
use pipeline::{Authorized, EngineError, Txn};

use super::entity::Entity;
use super::{Identity, segment};
use crate::input::{Input, is_write};

impl Identity {
    pub(super) async fn lookup_entity(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        if !is_write(request) {
            return Err(EngineError::unsupported_operation());
        }
        let input = Input::of(request.body())?;
        // What cannot be a name is nobody's.
        let found = if let Some(id) = input.text("id")? {
            with(segment(&id), Entity::by_id, txn).await?
        } else if let Some(name) = input.text("name")? {
            with(segment(&name), Entity::by_name, txn).await?
        } else if let Some(alias) = input.text("alias_id")? {
            with(segment(&alias), Entity::by_alias_id, txn).await?
        } else if let (Some(name), Some(accessor)) = (input.text("alias_name")?, input.text("alias_mount_accessor")?) {
            let sound = name.len() <= super::MAX_NAME_BYTES && !name.is_empty() && segment(&accessor).is_ok();
            if sound { Entity::by_alias(&accessor, &name, txn).await? } else { None }
        } else {
            return Err(EngineError::bad_request(
                "one of id, name, alias_id, or alias_name with alias_mount_accessor must be supplied",
            ));
        };
        Ok(found.map_or_else(Reply::no_content, |entity| Reply::data(&entity.to_data(self))))
    }
}

async fn with(
    name: Result<&str, EngineError>,
    find: impl AsyncFnOnce(&str, &mut Txn) -> Result<Option<Entity>, EngineError>,
    txn: &mut Txn,
) -> Result<Option<Entity>, EngineError> {
    match name {
        Ok(name) => find(name, txn).await,
        Err(_) => Ok(None),
    }
}
