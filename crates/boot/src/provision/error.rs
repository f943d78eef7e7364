//! Why a step of provisioning was not done.

use client::AskError;

use crate::provision::ReceiptError;

/// Why a step of provisioning was not done. All of it is tried again: whoever must act may act meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The store did not answer, refused, or answered what is of no use.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Something else is mounted there.
    #[error("{path} is mounted as {found}, and {wanted} is wanted")]
    Mounted {
        /// The mount.
        path: String,
        /// Its kind.
        found: String,
        /// The kind that the plan names.
        wanted: &'static str,
    },
    /// A service that is none.
    #[error("{service:?} cannot be provisioned: {reason}")]
    Service {
        /// Its name.
        service: String,
        /// Why not.
        reason: &'static str,
    },
    /// A password was needed, and none could be had.
    #[error("no password was made: {reason}")]
    Password {
        /// Why.
        reason: String,
    },
    /// The token did not reach its service.
    #[error("the token was not delivered")]
    Deliver(#[from] delivery::DeliverError),
    /// The receipt was not kept.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}
