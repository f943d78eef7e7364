//! What a mount must be able to do.
//!
//! An engine is reached with an [`Authorized`] request alone, so reaching it *is* the proof of authorisation. It reads and
//! writes through a [`Txn`] that sees this mount's entries only. It may be run twice for one request, when another commit
//! was first: all its effects go through the `Txn`, the [`Outcome`], or nowhere.

use std::future::Future;
use std::pin::Pin;

pub use policy::Action as Operation;

use crate::authz::Authorized;
use crate::error::EngineError;
use crate::lease::Lease;
use crate::outcome::Outcome;
use crate::txn::Txn;

/// A future of an object-safe `async fn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who may come to a path at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token: logins, public keys. Each such route stands in tests/golden/routes.txt.
    Anonymous,
    /// Whoever has a policy for it.
    Ordinary,
    /// Whoever has a policy for it with `sudo`.
    Sudo,
}

/// One kind of mount. `path` is always relative to the mount, without leading slash; a list's path is empty or ends in `/`.
pub trait Engine: Send + Sync {
    /// The type as in `sys/mounts`: `kv`, `userpass` ...
    fn kind(&self) -> &'static str;

    /// Who may come to `path`. Decided before anything is read, and without looking at what is stored.
    fn access(&self, _operation: api::Operation, _path: &str) -> Access {
        Access::Ordinary
    }

    /// Whether a write to `path` meets an entry (update) or not (create). Without an answer of its own an engine's writes
    /// are all updates, as in Vault.
    fn exists<'a>(&'a self, _path: &'a str, _txn: &'a mut Txn) -> BoxFuture<'a, Result<bool, EngineError>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Does what is asked. Writes stay in `txn`; the pipeline commits them when this returns `Ok`, and drops them otherwise.
    ///
    /// # Errors
    /// [`EngineError`]: nothing is changed.
    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>>;

    /// Takes back what was handed out under `lease`. Called again until it succeeds; doing it twice does no harm.
    ///
    /// # Errors
    /// [`EngineError`]: nothing is changed, and it will be tried again.
    fn revoke<'a>(&'a self, _lease: &'a Lease, _txn: &'a mut Txn) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
