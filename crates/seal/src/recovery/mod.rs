//! The recovery key: one slot more, whose key material is kept by people, for the day when the device's own source is
//! gone.
//!
//! It decrypts (unlike the recovery keys of Vault), so it is 256 bits of ours and never a passphrase, it leaves the
//! device in one of the ways that somebody chose beforehand ([`RecoveryChoice`]), and each use asks for a new one.

mod choice;
mod key;

pub use choice::{
    AgeRecipients, MAX_RECIPIENTS, RecipientError, RecoveryChoice, RecoveryFileError, check_file, seal_to_recipients,
    write_file,
};
pub use key::{RecoveryKey, RecoveryKeyError};
