//! A store that is not ours, a Vault or an OpenBao, kept by us: initialised, unsealed, given a root token for a moment,
//! cleaned of old tokens. All of it through [`client::Vault`].
//!
//! ```text
//! bring_up    health -> not initialised: Prepared -> Fresh -> Kept -> unseal      nothing is unsealed by what is not on the disk
//!                    -> sealed:          shares from the file     -> unseal
//!                    -> serving:         shares from the file
//! monitor     watches a store for as long as a process lives, and reopens it
//! reopen      sealed again by a crash: claim -> still sealed? -> noted for this boot -> unseal, by one process at a time
//! Scoped      a store with a token of ours that may do our work and no more: by a file, by an AppRole
//! RootToken   from init, or from the shares; lives in memory; revoked on every way out
//! rekey       new shares kept beside the old ones -> shown to the store -> in their place
//! services    policy, entity, user, alias, role -> token -> file; for each service of EdgeX
//! Sweep       the accessors of before; ended after the new tokens are in their files
//! ```
//! Where a run may be cut short is decided by the order of writes, and each place where a cut would hurt names its
//! test.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bring_up;
mod custody;
mod door;
mod health;
mod init;
mod issuing;
mod making;
mod monitor;
mod patience;
mod patient;
mod rekey;
mod reopen;
mod root;
mod scoped;
mod services;
mod stop;
mod sweep;
mod unseal;
mod wiped;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod place;

pub use bring_up::{BringUpError, Done, Opened, Remains, Wish, bring_up, bring_up_beside};
pub use custody::{Custody, CustodyError, Encrypted, Held, INTENT as INTENT_FILE, Keeping, OnDisk};
pub use door::{CUSTODY_MOUNT, CUSTODY_POLICY, keep_login};
pub use health::{Health, health};
pub use init::{Fresh, InitError, Kept, Prepared, ShareCounts};
pub use issuing::{IssuingToken, PRIVILEGED_POLICY};
pub use making::make_and_keep;
pub use monitor::{Standing, monitor};
pub use patience::{Exhausted, Patience};
pub use patient::Patient;
pub use rekey::{RekeyError, rekey};
pub use reopen::{ReopenError, Reopened, Reunseal, open_new, reopen};
pub use root::{RootError, RootToken, with_root};
pub use scoped::{Access, AccessError, Life, Scoped};
pub use services::{Regenerate, ServiceGround, ServiceWish, issue, regenerate};
pub use stop::{Halt, Stop, Stopped, stop};
pub use sweep::{Sweep, Swept};
pub use unseal::{UnsealError, unseal};
