//! Opening a slot set, by what a source gives or by a KEK that lay under the barrier; and the wrap itself.

use host::Entropy;
use secret::crypto::{self, Gcm};
use secret::{Kek, RootKey, Secret};
use zeroize::Zeroizing;

use super::{SetHeader, Slot, SlotDigest, SlotKek, SlotSet, WRAP_BYTES};
use crate::ikm::Ikm;
use crate::slot::{SlotId, SourceKind};

impl SlotSet {
    /// Whether `ikm` is the key material that `slot` was made with, by the slot's own word: the wrap is not tried.
    pub fn fits(&self, slot: SlotId, ikm: &Ikm) -> bool {
        let made_with = |s: &Slot| crypto::ct_eq(&ikm.derive(&s.salt, &self.store, s.id).verifier, &s.verifier);
        self.slots.iter().any(|s| s.id == slot && made_with(s))
    }

    /// Opens the first slot that names `kind` and that this IKM fits. The IKM is wiped on return.
    ///
    /// # Errors
    /// [`UnlockError`].
    pub fn unlock(&self, kind: SourceKind, ikm: Ikm) -> Result<Unlocked, UnlockError> {
        let mut refused = UnlockError::NoSlotOfKind { kind };
        for slot in self.slots_of(kind) {
            let keys = ikm.derive(&slot.salt, &self.store, slot.id);
            if !crypto::ct_eq(&keys.verifier, &slot.verifier) {
                refused = UnlockError::WrongIkm { slot: slot.id, kind };
                continue;
            }
            let root = self.open(slot, &keys.kek).ok_or(UnlockError::Tampered {
                slot: slot.id,
                kind,
                generation: self.generation,
            })?;
            return Ok(Unlocked {
                root,
                kek: SlotKek { slot: slot.id, kek: keys.kek },
                source: kind,
                header: self.header(),
                generation: self.generation,
                digest: self.digest(),
            });
        }
        Err(refused)
    }

    /// Opens the slot of a KEK that is kept under the barrier. `None`: it is no slot of this set, or does not open.
    pub fn unlock_by(&self, kek: SlotKek) -> Option<Unlocked> {
        let slot = self.slots.iter().find(|s| s.id == kek.slot)?;
        let root = self.open(slot, &kek.kek)?;
        let (source, header, digest) = (slot.public.kind(), self.header(), self.digest());
        Some(Unlocked { root, kek, source, header, generation: self.generation, digest })
    }

    /// Whether `kek` opens `slot` where it stands in this set.
    pub fn opens(&self, slot: SlotId, kek: &Kek) -> bool {
        self.slots.iter().any(|s| s.id == slot && self.open(s, kek).is_some())
    }

    /// The root key in `slot`, if `kek` opens the wrap where it stands.
    pub(super) fn open(&self, slot: &Slot, kek: &Kek) -> Option<RootKey> {
        let clear = Gcm::new(kek.expose()).open(slot.nonce, &self.associated(slot), &slot.wrap).ok()?;
        Secret::try_init_with(|key: &mut [u8; 32]| {
            key.copy_from_slice(clear.get(..32).ok_or(())?);
            Ok::<(), ()>(())
        })
        .ok()
        .map(RootKey::new)
    }

    /// Wraps `root` into `slot` as it stands in this set, under a new nonce.
    pub(super) fn wrap(&self, slot: &Slot, root: &RootKey, kek: &Kek, entropy: &dyn Entropy) -> Slot {
        let mut wrapped = slot.clone();
        entropy.fill(&mut wrapped.nonce);
        let mut text = Zeroizing::new(Vec::with_capacity(WRAP_BYTES));
        text.extend_from_slice(root.expose());
        if host::in_force("root-key-wrapped") {
            Gcm::new(kek.expose()).seal(wrapped.nonce, &self.associated(slot), &mut text);
        }
        text.resize(WRAP_BYTES, 0);
        wrapped.wrap.copy_from_slice(&text);
        wrapped
    }
}

/// An opened slot set: the root key, and a header that is now known to be authentic.
#[derive(Debug)]
pub struct Unlocked {
    /// The store's root key.
    pub root: RootKey,
    /// The KEK of the slot that opened.
    pub kek: SlotKek,
    /// The kind of source that opened it; [`SourceKind::Recovery`] asks for a rotation of the recovery key.
    pub source: SourceKind,
    header: SetHeader,
    generation: u64,
    digest: SlotDigest,
}

impl Unlocked {
    /// Store, profile and mode, proven by the wrap.
    pub fn header(&self) -> SetHeader {
        self.header
    }

    /// The generation, proven by the wrap.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The digest of the set that was opened.
    pub fn digest(&self) -> SlotDigest {
        self.digest
    }

    /// The same slot in `older`, the set that a change was to displace when the power was cut: by its root key the
    /// store may be open still. `None` if the slot does not open there.
    pub fn step_back(self, older: &SlotSet) -> Option<Unlocked> {
        older.unlock_by(self.kek)
    }
}

/// Why a slot set does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// No slot names this kind of source.
    #[error("the store has no key slot for a source of kind `{kind}`")]
    NoSlotOfKind {
        /// The kind of source that was tried.
        kind: SourceKind,
    },
    /// The source gave other key material than when the slot was made.
    #[error("slot {slot} was made with other key material than source `{kind}` gives now")]
    WrongIkm {
        /// The last slot that was tried.
        slot: SlotId,
        /// The kind of source that was tried.
        kind: SourceKind,
    },
    /// The right key material, and a slot that was changed after it was written.
    #[error("slot {slot} (source `{kind}`, generation {generation}) was changed after it was written")]
    Tampered {
        /// The slot.
        slot: SlotId,
        /// The kind of source it names.
        kind: SourceKind,
        /// The generation it claims.
        generation: u64,
    },
}

impl UnlockError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoSlotOfKind { .. } => {
                "set `source` to the kind that the store was made with, or unseal with the recovery key: `edgekeep recover`"
            }
            Self::WrongIkm { .. } => {
                "is this the device, and the key file or hook, that the store was made with? Otherwise unseal with the \
                 recovery key: `edgekeep recover`"
            }
            Self::Tampered { .. } => {
                "someone wrote to the slot files: keep a copy for investigation, then put back slots.a and slots.b from this \
                 device's own backup"
            }
        }
    }
}
