//! Making the services' world, through `client::Vault` alone, so that it is the same for our own store and for one that
//! somebody else runs.
//!
//! ```text
//! lay_ground        mounts, signing key
//! keep_credentials  one password at its source, then its copies
//! keep_identity     policy, entity, user, alias, OIDC role of one service
//! keep_token        token -> delivered -> receipt -> the old token dies
//! ```
//! Each compares what is wanted with what is found and does the difference: a second run writes nothing, and a run that
//! was cut short is finished by the next.

mod credentials;
mod error;
mod ground;
mod identity;
mod receipt;
mod token;

#[cfg(test)]
pub(crate) mod fake;

pub use credentials::{Passwords, keep_credentials, keep_credentials_from};
pub use error::ProvisionError;
pub use ground::{Ground, SIGNING_KEY, lay_ground, lay_mounts};
pub use identity::keep_identity;
pub use receipt::{Receipt, ReceiptError, Receipts};
pub(crate) use token::recipient;
pub use token::{Kept, Minting, TokenKeeper, revoke};
