//! All labels under which this crate derives keys (HKDF-SHA-256, RFC 5869 section 3.2: one label, one purpose).
//!
//! docs/formats.md lists them beside those of `seal`. A label is never used for a second purpose and never changed:
//! another format has another number.

/// Root key -> key that wraps the keyring; the salt is the store id.
pub(crate) const KEYRING: &str = "edgekeep/v1/keyring";
/// Head key -> key that encrypts the head.
pub(crate) const HEAD_SEAL: &str = "edgekeep/v1/head/seal";
/// Head key -> key of the multiset hash over all names.
pub(crate) const HEAD_ROOT: &str = "edgekeep/v1/head/root";
/// MAC key -> key of one purpose; the purpose's own name follows.
pub(crate) const MAC: &str = "edgekeep/v1/mac/";
