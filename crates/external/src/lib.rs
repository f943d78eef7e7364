//! A store that is not ours, a Vault or an OpenBao, kept by us: initialised, unsealed, given a root token for a moment, cleaned of
//! old tokens. All of it through [`client::Vault`].
//!
//! ```text
//! bring_up    health -> not initialised: Prepared -> Fresh -> Kept -> unseal      nothing is unsealed by what is not on the disk
//!                    -> sealed:          shares from the file     -> unseal
//!                    -> serving:         shares from the file
//! RootToken   from init, or from the shares; lives in memory; revoked on every way out
//! rekey       new shares kept beside the old ones -> shown to the store -> in their place
//! services    policy, entity, user, alias, role -> token -> file; for each service of EdgeX
//! Sweep       the accessors of before; ended after the new tokens are in their files
//! ```
//! Where a run may be cut short is decided by the order of writes, and each place where a cut would hurt names its test.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bring_up;
mod custody;
mod door;
mod health;
mod init;
mod issuing;
mod patience;
mod rekey;
mod root;
mod services;
mod stop;
mod sweep;
mod unseal;
mod wiped;

#[cfg(test)]
mod fake;

pub use bring_up::{BringUpError, Done, Opened, Wish, bring_up};
pub use custody::{Custody, CustodyError, Encrypted, Held, Keeping, OnDisk};
pub use door::{CUSTODY_MOUNT, CUSTODY_POLICY, keep_login};
pub use health::{Health, health};
pub use init::{Fresh, InitError, Kept, Prepared, ShareCounts};
pub use issuing::{IssuingToken, PRIVILEGED_POLICY};
pub use patience::{Exhausted, Patience};
pub use rekey::{RekeyError, rekey};
pub use root::{RootError, RootToken, with_root};
pub use services::{Regenerate, ServiceGround, ServiceWish, issue, regenerate};
pub use stop::{Halt, Stop, Stopped, stop};
pub use sweep::{Sweep, Swept};
pub use unseal::{UnsealError, unseal, unseal_held};
