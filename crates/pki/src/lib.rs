//! X.509 as pure functions: names and keys in, certificates out; no clock, no files, no sockets. What others made, and
//! how it is judged, is in [`peer`].
//!
//! A device has one [`Ca`], made at its first boot and pinned by every client (`ca.pem` lies beside each token), and
//! one [`ServerCertificate`] under it. Both are valid from 1970-01-01 to 9999-12-31 (RFC 5280, 4.1.2.5; IEEE 802.1AR,
//! 8.7): a device whose clock is wrong must still be let in by its own services, and trust here rests on the pin, not
//! on the date. Every certificate is read back by a second parser and checked against what was wanted before anybody
//! sees it.
//!
//! Keys are ECDSA on P-256: every TLS client of the field takes it (TLS 1.2 with Mbed TLS included), signing is the
//! fastest of all on small cores, and its strength, like that of the X25519 beside it, is enough for a device's life.
//! Key generation draws on aws-lc's generator, seeded by `getrandom(2)`; serial numbers come from [`host::Entropy`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ca;
mod certificate;
mod key;
mod lint;
mod names;
pub mod peer;

pub use ca::{Ca, Scope};
pub use certificate::{Fingerprint, Misfit, ServerCertificate};
pub use key::{Key, KeyError};
pub use lint::{Defect, LintError};
pub use names::{MAX_NAMES, NameError, ServerName, ServerNames};

/// No certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The CA was made for certain names, and this is none of them.
    #[error("the device CA may not vouch for {name}: it was made for {scope}")]
    OutOfScope {
        /// The name that was asked for.
        name: ServerName,
        /// The names of the CA.
        scope: ServerNames,
    },
    /// The key could not be made or used.
    #[error("cannot sign")]
    Key(#[from] KeyError),
    /// What was signed is not what was wanted: a defect of this program, so the certificate is thrown away.
    #[error("the certificate that was made is not fit for use")]
    Unfit(#[from] LintError),
    /// The encoder refused.
    #[error("cannot encode a certificate")]
    Encode(#[source] rcgen::Error),
}

/// What was stored cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The key is no key.
    #[error("the stored private key cannot be read")]
    Key(#[from] KeyError),
    /// The certificate breaks a rule.
    #[error("the stored certificate is not fit for use")]
    Unfit(#[from] LintError),
    /// Certificate and key belong to different pairs.
    #[error("the stored private key does not belong to the certificate {certificate}")]
    OtherKey {
        /// Fingerprint of the certificate.
        certificate: Fingerprint,
    },
}
