//! What a mount must be able to do.
//!
//! An engine is reached with an [`Authorized`] request alone, so reaching it *is* the proof of authorisation. It reads
//! and writes through a [`Txn`] that sees this mount's entries only. It may be run twice for one request, when another
//! commit was first: all its effects go through the `Txn`, the [`Outcome`], or nowhere.

use std::future::Future;
use std::pin::Pin;

pub use policy::Action as Operation;

use api::PeerCertificates;

use crate::authz::Authorized;
use crate::error::EngineError;
use crate::lease::Lease;
use crate::outcome::Outcome;
use crate::tokens::{TokenEntry, TtlRules};
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

/// One kind of mount. `path` is always relative to the mount, without leading slash; a list's path is empty or ends in
/// `/`.
pub trait Engine: Send + Sync {
    /// The type as in `sys/mounts`: `kv`, `userpass` ...
    fn kind(&self) -> &'static str;

    /// Who may come to `path`. Decided before anything is read, and without looking at what is stored.
    fn access(&self, _operation: api::Operation, _path: &str) -> Access {
        Access::Ordinary
    }

    /// The path of the entry that `path` means, where the engine keeps it under another: its names are in lower case,
    /// say. Policies must then allow both, or who writes `PROD` would pass what forbids `prod`.
    fn kept_as(&self, _path: &str) -> Option<String> {
        None
    }

    /// Whether a write to `path` meets an entry (update) or not (create). Without an answer of its own an engine's
    /// writes are all updates, as in Vault.
    fn exists<'a>(&'a self, _path: &'a str, _txn: &'a mut Txn) -> BoxFuture<'a, Result<bool, EngineError>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Whether it lets callers in by certificates: while there is such a mount, TLS clients are asked for theirs.
    fn reads_certificates(&self) -> bool {
        false
    }

    /// Does what is asked. Writes stay in `txn`; the pipeline commits them when this returns `Ok`, and drops them
    /// otherwise.
    ///
    /// # Errors
    /// [`EngineError`]: nothing is changed.
    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>>;

    /// By which rules a token that it let in is renewed today; a zero is the mount's word, and its maximum holds in any
    /// case. `by` is what whoever asks for the renewal has shown of himself.
    ///
    /// # Errors
    /// 400 when it would not let the bearer in today, or not with these policies: the token ends at the end that it
    /// has.
    fn renewal<'a>(
        &'a self,
        _token: &'a TokenEntry,
        _by: Option<&'a PeerCertificates>,
        _txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<TtlRules, EngineError>> {
        Box::pin(std::future::ready(Err(EngineError::bad_request("what let the bearer in renews no tokens"))))
    }

    /// Takes back what was handed out under `lease`. Called again until it succeeds; doing it twice does no harm.
    ///
    /// # Errors
    /// [`EngineError`]: nothing is changed, and it will be tried again.
    fn revoke<'a>(&'a self, _lease: &'a Lease, _txn: &'a mut Txn) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
