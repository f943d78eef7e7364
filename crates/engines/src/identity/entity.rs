//! Entities: one for each person or service, whatever they log in with.
//!
//! ```text
//! entity/<id>                        the entity with its aliases, as JSON
//! name/<name in lower case>          its id
//! alias/<alias id>                   the id of its entity
//! alias-name/<accessor>/<hex name>   the id of its entity
//! ```

use std::collections::BTreeMap;

use api::Reply;
use host::WallTime;
use pipeline::{Authorized, EngineError, Operation, Txn};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Identity, new_id, sound_name};
use crate::input::{Input, is_write};
use crate::listing::{listed, listed_with};

/// An entity with its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entity {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) policies: Vec<String>,
    #[serde(default)]
    pub(super) metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) disabled: bool,
    pub(super) created: i128,
    pub(super) updated: i128,
    /// At most one for each mount.
    #[serde(default)]
    pub(super) aliases: Vec<EntityAlias>,
}

/// A name of an entity at one auth mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntityAlias {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) mount_accessor: String,
    #[serde(default)]
    pub(super) custom_metadata: BTreeMap<String, String>,
    pub(super) created: i128,
    pub(super) updated: i128,
}

impl Entity {
    pub(super) fn new(name: String, txn: &Txn) -> Self {
        let now = txn.wall().0;
        Self {
            id: new_id(txn),
            name,
            policies: Vec::new(),
            metadata: None,
            disabled: false,
            created: now,
            updated: now,
            aliases: Vec::new(),
        }
    }

    /// A new one that nobody gave a name.
    pub(super) fn nameless(txn: &Txn) -> Self {
        let mut bytes = [0; 4];
        txn.fill(&mut bytes);
        Self::new(format!("entity_{}", hex::encode(bytes)), txn)
    }

    pub(super) async fn by_id(id: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        let Some(entry) = txn.get(&place(id)).await? else { return Ok(None) };
        let entity = serde_json::from_slice(entry.expose());
        entity.map(Some).map_err(|e| EngineError::internal(format!("entity {id} is unreadable: {e}")))
    }

    pub(super) async fn by_name(name: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        Self::behind(&name_place(name), txn).await
    }

    pub(super) async fn by_alias_id(alias: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        Self::behind(&alias_place(alias), txn).await
    }

    pub(super) async fn by_alias(accessor: &str, name: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        Self::behind(&alias_name_place(accessor, name), txn).await
    }

    async fn behind(index: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        let Some(id) = txn.get(index).await? else { return Ok(None) };
        let id = std::str::from_utf8(id.expose()).map_err(EngineError::internal)?;
        Self::by_id(id, txn).await
    }

    /// Writes the entity and its indexes.
    pub(super) fn save(&self, txn: &mut Txn) -> Result<(), EngineError> {
        let bytes = serde_json::to_vec(self).map_err(EngineError::internal)?;
        txn.put(&place(&self.id), SecretBytes::new(bytes))?;
        let id = || SecretBytes::new(self.id.clone().into_bytes());
        txn.put(&name_place(&self.name), id())?;
        for alias in &self.aliases {
            txn.put(&alias_place(&alias.id), id())?;
            txn.put(&alias_name_place(&alias.mount_accessor, &alias.name), id())?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, txn: &mut Txn) -> Result<(), EngineError> {
        txn.delete(&place(&self.id))?;
        txn.delete(&name_place(&self.name))?;
        self.aliases.iter().try_for_each(|a| a.remove(txn))
    }

    async fn update(&mut self, input: &Input<'_>, txn: &mut Txn) -> Result<(), EngineError> {
        if let Some(name) = input.text("name")?
            && name != self.name
        {
            let name = sound_name(&name)?;
            if Self::by_name(name, txn).await?.is_some_and(|other| other.id != self.id) {
                return Err(EngineError::bad_request("entity name is already in use"));
            }
            txn.delete(&name_place(&self.name))?;
            self.name = name.to_owned();
        }
        if let Some(policies) = input.list("policies")? {
            self.policies = policies.into_iter().map(|p| p.trim().to_lowercase()).filter(|p| !p.is_empty()).collect();
            self.policies.sort();
            self.policies.dedup();
            if self.policies.iter().any(|p| p == "root") {
                return Err(EngineError::bad_request("policies cannot contain root"));
            }
        }
        if let Some(metadata) = input.map("metadata")? {
            bounded(&metadata)?;
            self.metadata = Some(metadata);
        }
        self.disabled = input.flag("disabled")?.unwrap_or(self.disabled);
        self.updated = txn.wall().0;
        Ok(())
    }

    /// `data` of a read.
    pub(super) fn to_data(&self, identity: &Identity) -> Value {
        json!({
            "aliases": self.aliases.iter().map(|a| identity.alias_data(a, &self.id)).collect::<Vec<_>>(),
            "creation_time": WallTime(self.created).to_rfc3339(),
            "direct_group_ids": [],
            "disabled": self.disabled,
            "group_ids": [],
            "id": self.id,
            "inherited_group_ids": [],
            "last_update_time": WallTime(self.updated).to_rfc3339(),
            "merged_entity_ids": null,
            "metadata": self.metadata,
            "name": self.name,
            "namespace_id": "root",
            "policies": self.policies,
        })
    }
}

impl EntityAlias {
    pub(super) fn remove(&self, txn: &mut Txn) -> Result<(), EngineError> {
        txn.delete(&alias_place(&self.id))?;
        txn.delete(&alias_name_place(&self.mount_accessor, &self.name))
    }
}

impl Identity {
    /// `entity`: made or changed by what the body names.
    pub(super) async fn entity_any(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        if !is_write(request) {
            return Err(EngineError::unsupported_operation());
        }
        let input = Input::of(request.body())?;
        if let Some(id) = input.text("id")? {
            return self.change(&id, &input, txn).await;
        }
        match input.text("name")? {
            Some(name) => self.upsert(sound_name(&name)?, &input, txn).await,
            None => self.make(Entity::nameless(txn), &input, txn).await,
        }
    }

    pub(super) async fn entity_by_name(
        &self,
        name: &str,
        request: &Authorized<'_>,
        txn: &mut Txn,
    ) -> Result<Reply, EngineError> {
        match request.operation() {
            Operation::Read => self.shown(Entity::by_name(name, txn).await?),
            Operation::Create | Operation::Update => {
                // The name of the path counts; one in the body would rename what the path names.
                let input = Input::of(request.body())?;
                self.upsert(sound_name(name)?, &input, txn).await
            }
            Operation::Delete => gone(Entity::by_name(name, txn).await?, txn),
            Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
        }
    }

    pub(super) async fn entity_by_id(
        &self,
        id: &str,
        request: &Authorized<'_>,
        txn: &mut Txn,
    ) -> Result<Reply, EngineError> {
        match request.operation() {
            Operation::Read => self.shown(Entity::by_id(id, txn).await?),
            Operation::Create | Operation::Update => self.change(id, &Input::of(request.body())?, txn).await,
            Operation::Delete => gone(Entity::by_id(id, txn).await?, txn),
            Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
        }
    }

    pub(super) async fn entity_names(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        only_list(request)?;
        listed(txn.list(NAMES).await?)
    }

    pub(super) async fn entity_ids(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        only_list(request)?;
        let keys = txn.list(ENTITIES).await?;
        let mut info = Map::new();
        for id in &keys {
            let Some(entity) = Entity::by_id(id, txn).await? else { continue };
            let mut about = json!({ "name": entity.name });
            if !entity.aliases.is_empty() {
                about["aliases"] = entity.aliases.iter().map(|a| self.alias_brief(a)).collect();
            }
            info.insert(id.clone(), about);
        }
        listed_with(keys, info)
    }

    fn shown(&self, found: Option<Entity>) -> Result<Reply, EngineError> {
        Ok(Reply::data(&found.ok_or_else(EngineError::absent)?.to_data(self)))
    }

    /// 200 with the id for a new entity, 204 for one that was there: EdgeX tells them apart by it.
    async fn upsert(&self, name: &str, input: &Input<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        match Entity::by_name(name, txn).await? {
            None => self.make(Entity::new(name.to_owned(), txn), input, txn).await,
            Some(mut entity) => {
                entity.update(&input.without("name"), txn).await?;
                entity.save(txn)?;
                Ok(Reply::no_content())
            }
        }
    }

    async fn make(&self, mut entity: Entity, input: &Input<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        entity.update(&input.without("name"), txn).await?;
        entity.save(txn)?;
        Ok(Reply::data(&json!({ "aliases": null, "id": entity.id, "name": entity.name })))
    }

    async fn change(&self, id: &str, input: &Input<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
        let missing = || EngineError::bad_request("entity not found from id");
        let id = super::segment(id).map_err(|_| missing())?;
        let mut entity = Entity::by_id(id, txn).await?.ok_or_else(missing)?;
        entity.update(input, txn).await?;
        entity.save(txn)?;
        Ok(Reply::no_content())
    }
}

/// What was not there is gone as well.
fn gone(found: Option<Entity>, txn: &mut Txn) -> Result<Reply, EngineError> {
    found.map_or(Ok(()), |entity| entity.remove(txn))?;
    Ok(Reply::no_content())
}

pub(super) fn only_list(request: &Authorized<'_>) -> Result<(), EngineError> {
    if request.operation() == Operation::List { Ok(()) } else { Err(EngineError::unsupported_operation()) }
}

/// Vault's bounds.
pub(super) fn bounded(metadata: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if metadata.len() > 64 || metadata.iter().any(|(k, v)| k.is_empty() || k.len() > 128 || v.len() > 512) {
        return Err(EngineError::bad_request("metadata has at most 64 pairs, of 128 and 512 bytes"));
    }
    Ok(())
}

fn place(id: &str) -> String {
    format!("{ENTITIES}/{id}")
}

fn name_place(name: &str) -> String {
    format!("{NAMES}/{}", name.to_lowercase())
}

pub(super) fn alias_place(id: &str) -> String {
    format!("{ALIASES}/{id}")
}

/// A name at a mount may hold any character, so it is written in hexadecimal digits.
fn alias_name_place(accessor: &str, name: &str) -> String {
    format!("alias-name/{accessor}/{}", hex::encode(name.to_lowercase()))
}

const ENTITIES: &str = "entity";
const NAMES: &str = "name";
pub(super) const ALIASES: &str = "alias";
