//! The key schedule of one slot.
//!
//! ```text
//! IKM ─┬─ HKDF-Extract(salt of the slot) ─┬─ Expand(KEK    ‖ store ‖ slot) ── KEK ── AES-256-GCM ── root key
//!      └─ wiped on return                 └─ Expand(VERIFY ‖ store ‖ slot) ── verifier, in clear beside the wrap
//! ```
//! The verifier comes from the same extraction as the KEK under another label, so that it tells a wrong IKM from a
//! damaged slot and says nothing of the KEK (RFC 5869, 3.2). It helps no guesser either: the tag of the wrap is as good
//! a test.

use secret::{Kek, RootKey, Secret, SecretBytes, crypto};

use crate::ikm::Ikm;
use crate::labels::{self, Label};
use crate::slot::{SlotId, StoreId};

/// Bytes of a slot's salt: the hash length (RFC 5869, 3.1).
pub(crate) const SALT_BYTES: usize = 32;
/// Bytes of a verifier.
pub(crate) const VERIFIER_BYTES: usize = labels::VERIFY.bytes;

/// Both things that an IKM gives for one slot.
pub(crate) struct SlotKeys {
    pub(crate) kek: Kek,
    pub(crate) verifier: [u8; VERIFIER_BYTES],
}

impl Ikm {
    /// Derives a slot's keys.
    pub(crate) fn derive(&self, salt: &[u8; SALT_BYTES], store: &StoreId, slot: SlotId) -> SlotKeys {
        let ikm: &[u8] = if host::in_force("kek-from-ikm") { self.expose() } else { &[] };
        let expand = |label: Label, out: &mut [u8]| {
            let info = [label.text.as_bytes(), &store.0, &slot.0.to_be_bytes()].concat();
            crypto::hkdf_sha256(salt, ikm, &info, out);
        };
        let mut verifier = [0; VERIFIER_BYTES];
        expand(labels::VERIFY, &mut verifier);
        SlotKeys { kek: Kek::new(Secret::init_with(|key| expand(labels::KEK, key))), verifier }
    }
}

/// The key material under which the key shares of a store in another process are kept: whatever opens a slot opens
/// them.
pub fn custody_ikm(root: &RootKey, store: &StoreId) -> Ikm {
    let mut octets = zeroize::Zeroizing::new(vec![0; labels::CUSTODY.bytes]);
    crypto::hkdf_sha256(&store.0, root.expose(), labels::CUSTODY.text.as_bytes(), &mut octets);
    Ikm::new(SecretBytes::new(std::mem::take(&mut octets)), None).expect("32 octets of HKDF are key material")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ikm(text: &str) -> Ikm {
        Ikm::new(SecretBytes::new(hex::decode(text).unwrap()), None).unwrap()
    }

    #[test]
    fn custody_is_the_root_keys_and_the_stores() {
        let root = |b: u8| RootKey::new(Secret::init_with(|k| k.fill(b)));
        let base = custody_ikm(&root(1), &StoreId([2; 16]));
        assert!(base.ct_eq(&custody_ikm(&root(1), &StoreId([2; 16]))));
        assert!(!base.ct_eq(&custody_ikm(&root(9), &StoreId([2; 16]))));
        assert!(!base.ct_eq(&custody_ikm(&root(1), &StoreId([9; 16]))));
    }

    const DOCUMENTED: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

    #[test]
    fn salt_store_and_slot_each_change_the_key() {
        let derive = |salt: u8, store: u8, slot: u16| {
            let keys = ikm(DOCUMENTED).derive(&[salt; 32], &StoreId([store; 16]), SlotId(slot));
            (*keys.kek.expose(), keys.verifier)
        };
        let base = derive(1, 2, 3);
        assert_eq!(base, derive(1, 2, 3));
        for other in [derive(9, 2, 3), derive(1, 9, 3), derive(1, 2, 9)] {
            assert_ne!(base.0, other.0);
            assert_ne!(base.1, other.1);
        }
        assert_ne!(base.0[..VERIFIER_BYTES], base.1, "the verifier is no part of the KEK");
    }
}
