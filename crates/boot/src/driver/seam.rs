//! The store as the boot calls it: in this process, or at the end of a wire.

use std::sync::Arc;

use api::{Reply, Request};
use client::{CallError, HttpsVault, Vault};
use external::Scoped;
use pipeline::InProcess;

/// Whom the boot provisions through.
pub(super) enum Seam {
    /// Our own store; never root, and less than that once everything was made.
    Ours(InProcess),
    /// Another's, with our token.
    Theirs(Arc<Scoped<Arc<HttpsVault>>>),
}

impl Seam {
    /// Gives up what is not needed any more. In another's store that is for whoever wrote the token's policy.
    pub(super) fn reduce(self) -> Self {
        match self {
            Self::Ours(vault) => Self::Ours(vault.reduce()),
            theirs @ Self::Theirs(_) => theirs,
        }
    }
}

impl Vault for Seam {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        match self {
            Self::Ours(vault) => vault.call(request).await,
            Self::Theirs(vault) => vault.call(request).await,
        }
    }
}
