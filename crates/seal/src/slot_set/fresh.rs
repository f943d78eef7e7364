//! Another KEK for a slot that stays: the same key material under another salt.
//!
//! The KEK of each slot lies under the barrier, so whoever could once open the store may know all of them, by a copy of
//! its directory from that time. When a slot goes, the others need KEKs that such a copy does not tell.

use host::Entropy;
use secret::Kek;
use secret::crypto;

use super::{SlotKek, SlotSet};
use crate::derive::{SALT_BYTES, VERIFIER_BYTES};
use crate::ikm::Ikm;
use crate::slot::{SlotId, SourceKind};

/// What a slot is to be wrapped under from now on.
#[derive(Debug)]
pub struct FreshKek {
    pub(super) slot: SlotId,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) verifier: [u8; VERIFIER_BYTES],
    pub(super) kek: Kek,
}

impl FreshKek {
    /// Whose.
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// As the barrier keeps it.
    pub fn into_kek(self) -> SlotKek {
        SlotKek { slot: self.slot, kek: self.kek }
    }
}

impl SlotSet {
    /// A KEK for a slot that was made with `ikm`, under a new salt; `None` if it was not.
    pub fn fresh_kek(&self, slot: SlotId, ikm: &Ikm, entropy: &dyn Entropy) -> Option<FreshKek> {
        if !self.fits(slot, ikm) {
            return None;
        }
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let keys = ikm.derive(&salt, &self.store, slot);
        Some(FreshKek { slot, salt, verifier: keys.verifier, kek: keys.kek })
    }

    /// The KEK that `ikm` gives for a slot of that kind in this set; `None` if it fits none.
    pub fn kek_by(&self, kind: SourceKind, ikm: &Ikm) -> Option<SlotKek> {
        self.slots_of(kind).find_map(|slot| {
            let keys = ikm.derive(&slot.salt, &self.store, slot.id);
            crypto::ct_eq(&keys.verifier, &slot.verifier).then_some(SlotKek { slot: slot.id, kek: keys.kek })
        })
    }
}
