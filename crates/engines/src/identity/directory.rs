//! The entities as the pipeline asks for them.

use pipeline::{Alias, BoxFuture, Directory, EngineError, Standing, Txn};

use super::entity::{Entity, EntityAlias};
use super::{Identity, new_id, segment};

impl Directory for Identity {
    fn entity<'a>(&'a self, id: &'a str, txn: &'a mut Txn) -> BoxFuture<'a, Result<Option<Standing>, EngineError>> {
        Box::pin(async move {
            if segment(id).is_err() {
                return Ok(None);
            }
            Ok(Entity::by_id(id, txn).await?.map(standing))
        })
    }

    fn resolve<'a>(&'a self, alias: &'a Alias<'a>, txn: &'a mut Txn) -> BoxFuture<'a, Result<String, EngineError>> {
        Box::pin(async move {
            if let Some(entity) = Entity::by_alias(alias.mount_accessor, alias.name, txn).await? {
                return Ok(entity.id);
            }
            let mut entity = Entity::nameless(txn);
            let now = entity.created;
            entity.aliases.push(EntityAlias {
                id: new_id(txn),
                name: alias.name.to_owned(),
                mount_accessor: alias.mount_accessor.to_owned(),
                custom_metadata: Default::default(),
                created: now,
                updated: now,
            });
            entity.save(txn)?;
            Ok(entity.id)
        })
    }
}

fn standing(entity: Entity) -> Standing {
    let aliases = entity.aliases.into_iter().map(|a| policy::Alias {
        mount_accessor: a.mount_accessor,
        id: a.id,
        name: a.name,
        metadata: a.custom_metadata,
    });
    Standing {
        disabled: entity.disabled,
        policies: entity.policies,
        identity: policy::Identity {
            entity: Some(policy::Entity {
                id: entity.id,
                name: entity.name,
                metadata: entity.metadata.unwrap_or_default(),
                aliases: aliases.collect(),
            }),
            groups: Vec::new(),
        },
    }
}
