//! EdgeX's own key custody: `resp-init.json` and `kdf-salt.dat` beside each other.
//!
//! ```text
//! Shares ─┬─ clear:   ClearShares   what `sys/init` answered; can be wrapped, and saved only by who may (PlainSharesAllowed)
//!         └─ wrapped: WrappedShares each under a key of its own; can be saved
//! ```
//! The format is EdgeX's (docs/formats.md); its defects are not: a salt is never made while decrypting, array lengths
//! are compared, a truncated or exchanged share is an error, and clear shares go to disk only where somebody asked for
//! it. What the format lacks stays lacking: nothing binds the shares to a store, and an old file put back is not
//! noticed.

mod login;
mod plain;
mod resp_init;
mod salt;
mod share;

pub use login::SharesLogin;
pub use plain::PlainSharesAllowed;
pub use resp_init::{MAX_INIT_FILE_BYTES, Shares, SharesError};
pub use salt::{EdgexSalt, SALT_FILE, SaltError};
pub use share::{ClearShares, EdgexLabel, OpenSharesError, WrappedShares};
