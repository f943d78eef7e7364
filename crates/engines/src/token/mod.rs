//! `auth/token/`: tokens made, looked at, renewed and revoked by their bearers and keepers.
//!
//! Where a child gets no policies of its own it inherits its parent's, as in Vault, but for one: `root` is never
//! inherited, neither through a role nor without one. Who wants a root token has to say so.

mod create;
mod lookup;
mod renew;
mod revoke;
mod roles;

use std::sync::Arc;

use api::PeerCertificates;
use pipeline::{
    Access, Authorized, BoxFuture, Engine, EngineError, Operation, Outcome, Services, TokenEntry, TtlRules, Txn,
};

/// The engine of `auth/token/`.
#[derive(Debug)]
pub struct TokenEngine {
    services: Arc<Services>,
}

impl TokenEngine {
    /// Over the tokens of one store.
    pub fn new(services: Arc<Services>) -> Self {
        Self { services }
    }

    async fn route(&self, request: &Authorized<'_>, txn: &mut Txn) -> Result<Outcome, EngineError> {
        use Operation::{Create, Delete, List, Read, Update};
        let write = matches!(request.operation(), Create | Update);
        match (request.path(), request.operation()) {
            ("create", _) if write => create::create(self, request, create::Kind::Child, txn).await,
            ("create-orphan", _) if write => create::create(self, request, create::Kind::Orphan, txn).await,
            ("lookup-self", Read) => lookup::own(self, request).await,
            ("lookup", Read) => lookup::own(self, request).await,
            ("lookup-self", _) if write => lookup::own(self, request).await,
            ("lookup", _) if write => lookup::presented(self, request).await,
            ("lookup-accessor", _) if write => lookup::by_accessor(self, request, txn).await,
            ("renew-self", _) if write => renew::own(self, request, txn).await,
            ("renew", _) if write => renew::presented(self, request, txn).await,
            ("renew-accessor", _) if write => renew::by_accessor(self, request, txn).await,
            ("revoke-self", _) if write => revoke::own(self, request, txn).await,
            ("revoke", _) if write => revoke::presented(self, request, txn).await,
            ("revoke-accessor", _) if write => revoke::by_accessor(self, request, txn).await,
            ("revoke-orphan", _) if write => revoke::orphan(self, request, txn).await,
            ("accessors/", List) => lookup::accessors(self, txn).await,
            ("roles/", List) => roles::list(txn).await,
            (path, operation) => match (segments(path), operation) {
                (Some(("create", role)), _) if write => {
                    create::create(self, request, create::Kind::Role(role), txn).await
                }
                (Some(("roles", role)), Read) => roles::read(role, txn).await,
                (Some(("roles", role)), Create | Update) => roles::write(request, role, txn).await,
                (Some(("roles", role)), Delete) => roles::delete(role, txn),
                (found, _) if found.is_some() || PATHS.contains(&path.trim_end_matches('/')) => {
                    Err(EngineError::unsupported_operation())
                }
                _ => Err(EngineError::unsupported_path()),
            },
        }
    }
}

impl Engine for TokenEngine {
    fn kind(&self) -> &'static str {
        "token"
    }

    fn access(&self, _operation: api::Operation, path: &str) -> Access {
        match path.trim_end_matches('/') {
            "accessors" | "revoke-orphan" => Access::Sudo,
            _ => Access::Ordinary,
        }
    }

    fn exists<'a>(&'a self, path: &'a str, txn: &'a mut Txn) -> BoxFuture<'a, Result<bool, EngineError>> {
        Box::pin(async move {
            match segments(path) {
                Some(("roles", role)) => Ok(roles::find(role, txn).await?.is_some()),
                _ => Ok(true),
            }
        })
    }

    fn renewal<'a>(
        &'a self,
        token: &'a TokenEntry,
        _by: Option<&'a PeerCertificates>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<TtlRules, EngineError>> {
        Box::pin(renew::rules(token, txn))
    }

    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(self.route(request, txn))
    }
}

/// `create/<role>` and `roles/<role>`.
fn segments(path: &str) -> Option<(&str, &str)> {
    path.split_once('/')
        .filter(|(first, name)| matches!(*first, "create" | "roles") && !name.is_empty() && !name.contains('/'))
}

const PATHS: [&str; 15] = [
    "create",
    "create-orphan",
    "lookup",
    "lookup-self",
    "lookup-accessor",
    "renew",
    "renew-self",
    "renew-accessor",
    "revoke",
    "revoke-self",
    "revoke-accessor",
    "revoke-orphan",
    "accessors",
    "roles",
    "tidy",
];
