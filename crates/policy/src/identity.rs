//! Who asks, as far as templates in paths may name it.

use std::collections::BTreeMap;

/// The entity of a token and the groups that it belongs to. Both may be absent: then no templated rule applies.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The entity, if the token has one.
    pub entity: Option<Entity>,
    /// Its groups, direct and inherited.
    pub groups: Vec<Group>,
}

/// An entity.
#[derive(Clone, Debug, Default)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its aliases.
    pub aliases: Vec<Alias>,
}

/// The name of an entity in one auth mount.
#[derive(Clone, Debug, Default)]
pub struct Alias {
    /// Accessor of the auth mount.
    pub mount_accessor: String,
    /// Id of the alias.
    pub id: String,
    /// Name of the alias.
    pub name: String,
    /// Metadata of the alias.
    pub metadata: BTreeMap<String, String>,
}

/// A group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
}
