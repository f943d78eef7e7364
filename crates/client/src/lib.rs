//! The seam: whoever provisions a store does it through [`Vault`], be the store in this process or at the end of a wire.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::future::Future;

use api::{Reply, Request};

/// Anything that answers the Vault API.
pub trait Vault: Send + Sync {
    /// Makes one call. A refusal by the store (403, 404 ...) is a reply, not an error.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there.
    #[error("{address} does not answer")]
    Unreachable {
        /// The address that was tried.
        address: String,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The peer could not show that it is who it should be.
    #[error("{address} is not the server that this device trusts: {reason}")]
    Untrusted {
        /// The address that was tried.
        address: String,
        /// What the certificate check said.
        reason: String,
    },
    /// No answer within the deadline; the call may have taken effect.
    #[error("{address} did not answer within {seconds} s")]
    TimedOut {
        /// The address that was tried.
        address: String,
        /// The deadline.
        seconds: u64,
    },
    /// An answer that is not HTTP, not JSON, or too large.
    #[error("{address} answered what this client cannot read: {reason}")]
    Malformed {
        /// The address that was tried.
        address: String,
        /// What was wrong with it.
        reason: String,
    },
}
