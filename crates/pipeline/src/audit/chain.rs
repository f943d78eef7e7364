//! The chain: each code covers the record and the code before it, so that nothing can be changed, moved, added or taken
//! out of the middle without the key.

use secret::crypto::{Hmac, ct_eq};

/// One link: HMAC-SHA-256.
pub(crate) type Link = [u8; LINK_BYTES];

/// Bytes of a link.
pub(crate) const LINK_BYTES: usize = 32;

/// The key of the audit. Whoever has it can forge the log, so it lies in the keyring and leaves with the seal. In one
/// place, wherever it is handed on to: each other one would keep a copy.
#[derive(Debug)]
pub struct ChainKey(Box<Hmac>);

impl ChainKey {
    /// From a key of the keyring (`Store::audit_key`).
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Box::new(Hmac::new(key)))
    }

    /// The link after `previous`. `head` has a fixed size and holds the body's length, so the parts are unambiguous.
    pub(crate) fn next(&self, previous: &Link, head: &[u8], body: &[u8]) -> Link {
        self.0.sign(&[b"record", previous, head, body])
    }

    /// The code of a segment's header.
    pub(crate) fn header(&self, header: &[u8]) -> Link {
        self.0.sign(&[b"header", header])
    }

    /// Whether it is the same key.
    pub(crate) fn is(&self, other: &Self) -> bool {
        ct_eq(&self.start(&[0; 16]), &other.start(&[0; 16]))
    }

    /// Where a new ring's chain begins: `nonce` keeps two rings of one store apart.
    pub(crate) fn start(&self, nonce: &[u8; 16]) -> Link {
        self.0.sign(&[b"start", nonce])
    }

    pub(crate) fn holds(&self, previous: &Link, head: &[u8], body: &[u8], link: &Link) -> bool {
        ct_eq(&self.next(previous, head, body), link)
    }
}
