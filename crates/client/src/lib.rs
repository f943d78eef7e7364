//! The seam: whoever provisions a store does it through [`Vault`], be the store in this process or at the end of a
//! wire.
//!
//! ```text
//! api::Request --encode--> HTTP/1.1 over TLS ([`HttpsVault`]) or a Unix socket ([`UnixVault`]) --reply--> api::Reply
//! ```
//!
//! [`Calls`] asks it in the few shapes that those need who keep a store. Beside it stands [`exchange_plain`], one
//! bounded HTTP exchange for protocols that protect themselves.
//!
//! Every wire has deadlines, a bound on what it reads, and one connection that is used again. TLS trusts the one CA
//! that it is given, never those of the system.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod bearer;
mod calls;
mod encode;
mod index;
mod plain;
mod reply;
mod status;
mod transport;
mod trust;
mod wire;

use std::future::Future;

use api::{Reply, Request};

pub use address::{Address, AddressError};
pub use bearer::Bearer;
pub use calls::{AskError, Calls, text_of};
pub use plain::{HttpReply, HttpRequest, Origin, OriginError, exchange as exchange_plain};
pub use reply::{MAX_REPLY_BYTES, parse as parse_reply};
pub use status::{StatusError, WebUrl, WebUrlError};
pub use transport::{DangerPlainVault, HttpsVault, PlainNetworkAllowed, PlainRefused, Remote, UnixVault};
pub use trust::{Trust, TrustError};
pub use wire::Deadlines;

/// Anything that answers the Vault API.
pub trait Vault: Send + Sync {
    /// Makes one call. A refusal by the store (403, 404 ...) is a reply, not an error.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

impl<V: Vault> Vault for std::sync::Arc<V> {
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, CallError>> + Send {
        V::call(self, request)
    }
}

/// A [`Vault`] at the end of a wire of its own.
pub trait Wired: Vault {
    /// Resolves when a connection of this client has ended since the last call: at once when the store's process dies,
    /// for then the kernel closes it, without asking it for anything. It may be told without need.
    fn hung_up(&self) -> impl Future<Output = ()> + Send;
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
