//! Aliases: the name of an entity at an auth mount. Who logs in there under that name is that entity.

use api::Reply;
use host::WallTime;
use pipeline::{Authorized, EngineError, Operation, Txn};
use serde_json::{Map, Value, json};

use super::entity::{ALIASES, Entity, EntityAlias, bounded, only_list};
use super::{Identity, new_id, segment};
use crate::input::{Input, is_write};
use crate::listing::listed_with;

impl Identity {
    /// `entity-alias`: 200 with the ids when something was made or changed, 204 when all was so already.
    pub(super) async fn alias_any(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        if !is_write(request) {
            return Err(EngineError::unsupported_operation());
        }
        let input = Input::of(request.body())?;
        if let Some(id) = input.text("id")? {
            return self.change_alias(&id, &input, txn).await;
        }
        let (Some(name), Some(accessor)) = (input.text("name")?, input.text("mount_accessor")?) else {
            return Err(EngineError::bad_request("'id' or 'mount_accessor' and 'name' must be provided"));
        };
        self.check(&name, &accessor)?;
        match Entity::by_alias(&accessor, &name, txn).await? {
            Some(holder) => self.bind(holder, &accessor, &name, &input, txn).await,
            None => {
                let now = txn.wall().0;
                let custom_metadata = custom_metadata(&input)?.unwrap_or_default();
                let alias = EntityAlias {
                    id: new_id(txn),
                    name,
                    mount_accessor: accessor,
                    custom_metadata,
                    created: now,
                    updated: now,
                };
                let mut entity = match input.text("canonical_id")?.filter(|id| !id.is_empty()) {
                    Some(id) => target(&id, txn).await?,
                    None => Entity::nameless(txn),
                };
                free_at(&entity, &alias.mount_accessor)?;
                let reply = ids(&alias, &entity);
                entity.aliases.push(alias);
                entity.save(txn)?;
                Ok(reply)
            }
        }
    }

    pub(super) async fn alias_by_id(
        &self,
        id: &str,
        request: &Authorized<'_>,
        txn: &mut Txn,
    ) -> Result<Reply, EngineError> {
        match request.operation() {
            Operation::Create | Operation::Update => self.change_alias(id, &Input::of(request.body())?, txn).await,
            Operation::Read => {
                let entity = Entity::by_alias_id(id, txn).await?.ok_or_else(EngineError::absent)?;
                let alias = entity.aliases.iter().find(|a| a.id == id).ok_or_else(EngineError::absent)?;
                Ok(Reply::data(&self.alias_data(alias, &entity.id)))
            }
            Operation::Delete => {
                if let Some(mut entity) = Entity::by_alias_id(id, txn).await?
                    && let Some(at) = entity.aliases.iter().position(|a| a.id == id)
                {
                    entity.aliases.remove(at).remove(txn)?;
                    entity.updated = txn.wall().0;
                    entity.save(txn)?;
                }
                Ok(Reply::no_content())
            }
            Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
        }
    }

    pub(super) async fn alias_ids(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        only_list(request)?;
        let keys = txn.list(ALIASES).await?;
        let mut info = Map::new();
        for id in &keys {
            let Some(entity) = Entity::by_alias_id(id, txn).await? else { continue };
            let Some(alias) = entity.aliases.iter().find(|a| a.id == *id) else { continue };
            let mut about = self.alias_brief(alias);
            about["canonical_id"] = json!(entity.id);
            about["custom_metadata"] = json!(alias.custom_metadata);
            about["local"] = json!(false);
            about["metadata"] = Value::Null;
            if let Some(all) = about.as_object_mut() {
                all.remove("id");
            }
            info.insert(id.clone(), about);
        }
        listed_with(keys, info)
    }

    /// An alias that is there: nothing to do, other metadata, or another entity.
    async fn bind(
        &self,
        holder: Entity,
        accessor: &str,
        name: &str,
        input: &Input<'_>,
        txn: &mut Txn,
    ) -> Result<Reply, EngineError> {
        let mut holder = holder;
        let lower = name.to_lowercase();
        let is_it = |a: &EntityAlias| a.mount_accessor == accessor && a.name.to_lowercase() == lower;
        let Some(at) = holder.aliases.iter().position(is_it) else {
            return Err(EngineError::internal("an alias is in the index but not in its entity"));
        };
        let wanted = input.text("canonical_id")?.filter(|id| !id.is_empty() && *id != holder.id);
        let metadata = custom_metadata(input)?.filter(|m| *m != holder.aliases[at].custom_metadata);
        if wanted.is_none() && metadata.is_none() {
            return Ok(Reply::no_content());
        }
        let mut alias = holder.aliases.remove(at);
        alias.custom_metadata = metadata.unwrap_or(alias.custom_metadata);
        alias.updated = txn.wall().0;
        let mut entity = match wanted {
            Some(id) => {
                let to = target(&id, txn).await?;
                free_at(&to, accessor)?;
                holder.updated = alias.updated;
                holder.save(txn)?;
                to
            }
            None => holder,
        };
        let reply = ids(&alias, &entity);
        entity.aliases.push(alias);
        // After the former holder's save, so that the indexes end at the new one.
        entity.save(txn)?;
        Ok(reply)
    }

    async fn change_alias(&self, id: &str, input: &Input<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        let missing = || EngineError::bad_request("alias not found from id");
        let id = segment(id).map_err(|_| missing())?;
        let mut holder = Entity::by_alias_id(id, txn).await?.ok_or_else(missing)?;
        let at = holder.aliases.iter().position(|a| a.id == id).ok_or_else(missing)?;
        let before = holder.aliases.remove(at);
        before.remove(txn)?;
        let alias = EntityAlias {
            name: input.text("name")?.unwrap_or_else(|| before.name.clone()),
            mount_accessor: input.text("mount_accessor")?.unwrap_or_else(|| before.mount_accessor.clone()),
            custom_metadata: custom_metadata(input)?.unwrap_or_else(|| before.custom_metadata.clone()),
            updated: txn.wall().0,
            ..before.clone()
        };
        self.check(&alias.name, &alias.mount_accessor)?;
        // Its own name is out of the index already: whoever is found there now, however he is spelt, is another.
        let taken = Entity::by_alias(&alias.mount_accessor, &alias.name, txn).await?.is_some();
        if taken && host::in_force("one-login-one-entity") {
            return Err(EngineError::bad_request("alias with this name and mount accessor already exists"));
        }
        let mut entity = match input.text("canonical_id")?.filter(|to| !to.is_empty() && *to != holder.id) {
            Some(to) => {
                let to = target(&to, txn).await?;
                holder.save(txn)?;
                to
            }
            None => holder,
        };
        free_at(&entity, &alias.mount_accessor)?;
        let reply = ids(&alias, &entity);
        entity.aliases.push(alias);
        entity.save(txn)?;
        Ok(reply)
    }

    fn check(&self, name: &str, accessor: &str) -> Result<(), EngineError> {
        if name.is_empty() || name.len() > super::MAX_NAME_BYTES {
            return Err(EngineError::bad_request("an alias has 1 to 256 bytes"));
        }
        if self.mounts.table().with_accessor(accessor).is_none_or(|m| !m.entry().is_auth()) {
            return Err(EngineError::bad_request(format!("invalid mount accessor {accessor:?}"))
                .recorded_as("there is no auth mount with this accessor"));
        }
        Ok(())
    }

    /// An alias as a read shows it.
    pub(super) fn alias_data(&self, alias: &EntityAlias, entity_id: &str) -> Value {
        let mut data = self.alias_brief(alias);
        data["canonical_id"] = json!(entity_id);
        data["creation_time"] = json!(WallTime(alias.created).to_rfc3339());
        data["custom_metadata"] = json!(alias.custom_metadata);
        data["last_update_time"] = json!(WallTime(alias.updated).to_rfc3339());
        data["local"] = json!(false);
        data["merged_from_canonical_ids"] = Value::Null;
        data["metadata"] = Value::Null;
        data["namespace_id"] = json!("root");
        data
    }

    /// An alias as a list shows it.
    pub(super) fn alias_brief(&self, alias: &EntityAlias) -> Value {
        let table = self.mounts.table();
        let mount = table.with_accessor(&alias.mount_accessor).map(|m| m.entry());
        json!({
            "id": alias.id,
            "mount_accessor": alias.mount_accessor,
            "mount_path": mount.map_or("", |m| &*m.path),
            "mount_type": mount.map_or("", |m| &*m.kind),
            "name": alias.name,
        })
    }
}

async fn target(id: &str, txn: &mut Txn) -> Result<Entity, EngineError> {
    let missing = || EngineError::bad_request("given 'canonical_id' is not associated with an entity");
    let id = segment(id).map_err(|_| missing())?;
    Entity::by_id(id, txn).await?.ok_or_else(missing)
}

fn free_at(entity: &Entity, accessor: &str) -> Result<(), EngineError> {
    if entity.aliases.iter().any(|a| a.mount_accessor == accessor) {
        return Err(EngineError::bad_request("Alias already exists for requested entity and mount accessor"));
    }
    Ok(())
}

fn custom_metadata(input: &Input<'_>) -> Result<Option<std::collections::BTreeMap<String, String>>, EngineError> {
    let metadata = input.map("custom_metadata")?;
    metadata.as_ref().map_or(Ok(()), bounded)?;
    Ok(metadata)
}

fn ids(alias: &EntityAlias, entity: &Entity) -> Reply {
    Reply::data(&json!({ "canonical_id": entity.id, "id": alias.id }))
}
