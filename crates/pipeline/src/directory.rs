//! Who an entity is *now*: its policies and names, asked at each request and not copied into tokens.

use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::txn::Txn;

/// The entities, as the pipeline needs them. The identity engine implements it; each `Txn` given sees the entries of
/// the mount `identity/`. What is returned may be cached until a commit touches that mount.
pub trait Directory: Send + Sync {
    /// The entity with this id, or `None`: a token of a vanished entity is refused.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read: the request is refused, never let through without its entity.
    fn entity<'a>(&'a self, id: &'a str, txn: &'a mut Txn) -> BoxFuture<'a, Result<Option<Standing>, EngineError>>;

    /// The id of the entity that an auth mount knows as `alias`, made in `txn` if there is none.
    ///
    /// # Errors
    /// [`EngineError`].
    fn resolve<'a>(&'a self, alias: &'a Alias<'a>, txn: &'a mut Txn) -> BoxFuture<'a, Result<String, EngineError>>;
}

/// What counts about an entity when a request is decided.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// All its tokens are refused.
    pub disabled: bool,
    /// Its policies, and those of its groups.
    pub policies: Vec<String>,
    /// Its names and metadata, for templated policies.
    pub identity: policy::Identity,
}

/// A caller as an auth mount knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias<'a> {
    /// The mount's accessor, `auth_userpass_26d8b498`.
    pub mount_accessor: &'a str,
    /// The mount's kind.
    pub mount_kind: &'a str,
    /// The mount's path with its slash, `auth/userpass/`.
    pub mount_path: &'a str,
    /// The name there.
    pub name: &'a str,
}

/// A house without entities: a token that names one is refused.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoDirectory;

impl Directory for NoDirectory {
    fn entity<'a>(&'a self, _id: &'a str, _txn: &'a mut Txn) -> BoxFuture<'a, Result<Option<Standing>, EngineError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn resolve<'a>(&'a self, _alias: &'a Alias<'a>, _txn: &'a mut Txn) -> BoxFuture<'a, Result<String, EngineError>> {
        Box::pin(std::future::ready(Err(EngineError::internal("a login names an entity, but there is no directory"))))
    }
}
