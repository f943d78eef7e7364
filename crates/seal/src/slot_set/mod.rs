//! The slot set: who can open the store, each slot the same root key wrapped for another source.
//!
//! ```text
//! header  magic 8 | version u16 | store id 16 | generation u64 | profile u8 | seal mode u8 | count u8
//! slot    id u16 | source u8 | release limit u8 | salt 32 | length u16 | public items | verifier 16 | nonce 12 | wrap 48
//! ...     (ids rising)
//! digest  SHA-256 of all before
//! ```
//! Numbers are big-endian. The wrap is AES-256-GCM under the slot's KEK; its associated data are the whole header and the
//! slot from id to verifier. So nothing that decides how the store opens can be changed on disk without the wrap refusing.
//! The digest is no protection, it tells bit rot (try the other copy) from a hand.

mod change;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use host::Entropy;
use secret::crypto::{self, Gcm, NONCE_BYTES};
use secret::{Kek, RootKey, Secret};
use zeroize::Zeroizing;

use crate::derive::{SALT_BYTES, VERIFIER_BYTES};
use crate::ikm::Ikm;
use crate::slot::{Profile, SealMode, SlotId, SlotPublic, SourceKind, StoreId};

pub use change::{Change, ChangeError, CreateError};
pub use wire::{MAX_SLOT_SET_BYTES, MAX_SLOTS, ParseError};

/// Bytes of a root key under its wrap: 32 and the tag.
const WRAP_BYTES: usize = 32 + crypto::TAG_BYTES;

/// SHA-256 over a slot set, kept in the store's head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlotDigest(pub [u8; 32]);

impl fmt::Display for SlotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SlotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotDigest({self})")
    }
}

/// One slot as it is on disk: nothing in it is secret, and nothing in it is believed before its wrap has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    id: SlotId,
    public: SlotPublic,
    salt: [u8; SALT_BYTES],
    verifier: [u8; VERIFIER_BYTES],
    nonce: [u8; NONCE_BYTES],
    wrap: [u8; WRAP_BYTES],
}

impl Slot {
    /// Its number in the set.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// What its source needs to release.
    pub fn public(&self) -> &SlotPublic {
        &self.public
    }
}

/// A well-formed slot set. Well-formed is not authentic: that is [`Unlocked`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSet {
    store: StoreId,
    generation: u64,
    profile: Profile,
    mode: SealMode,
    slots: Vec<Slot>,
}

/// What stays the same through all generations of a store's slot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetHeader {
    /// The store's name.
    pub store: StoreId,
    /// What it was made for.
    pub profile: Profile,
    /// How it is unsealed.
    pub mode: SealMode,
}

/// A slot to be made: what its source gave at provisioning, and then released.
#[derive(Debug)]
pub struct NewSlot {
    /// Public part, from [`crate::KeySource::provision`].
    pub public: SlotPublic,
    /// Key material, from [`crate::KeySource::release`].
    pub ikm: Ikm,
}

/// A slot's KEK, to be kept under the barrier: so that the slot can be re-wrapped while its source is absent.
#[derive(Debug)]
pub struct SlotKek {
    /// Whose.
    pub slot: SlotId,
    /// The key.
    pub kek: Kek,
}

/// Makes a store's root key.
pub fn new_root_key(entropy: &dyn Entropy) -> RootKey {
    RootKey::new(Secret::init_with(|key| entropy.fill(key)))
}

impl SlotSet {
    /// The set's store, profile and mode.
    pub fn header(&self) -> SetHeader {
        SetHeader { store: self.store, profile: self.profile, mode: self.mode }
    }

    /// Counts the changes of the set; 1 for the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The slots, ids rising.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots which that kind of source opens.
    pub fn slots_of(&self, kind: SourceKind) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |s| s.public.kind() == kind)
    }

    /// Whether this set belongs to `store`.
    ///
    /// # Errors
    /// [`ForeignStore`].
    pub fn check_store(&self, store: &StoreId) -> Result<(), ForeignStore> {
        if self.store == *store { Ok(()) } else { Err(ForeignStore { found: self.store, expected: *store }) }
    }

    /// Whether the store was made for `profile`.
    ///
    /// # Errors
    /// [`ProfileMismatch`].
    pub fn check_profile(&self, profile: Profile) -> Result<(), ProfileMismatch> {
        let found = self.profile;
        if found == profile || !host::in_force("profile-stands") {
            Ok(())
        } else {
            Err(ProfileMismatch { found, expected: profile })
        }
    }

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
    fn open(&self, slot: &Slot, kek: &Kek) -> Option<RootKey> {
        let clear = Gcm::new(kek.expose()).open(slot.nonce, &self.associated(slot), &slot.wrap).ok()?;
        Secret::try_init_with(|key: &mut [u8; 32]| {
            key.copy_from_slice(clear.get(..32).ok_or(())?);
            Ok::<(), ()>(())
        })
        .ok()
        .map(RootKey::new)
    }

    /// Wraps `root` into `slot` as it stands in this set, under a new nonce.
    fn wrap(&self, slot: &Slot, root: &RootKey, kek: &Kek, entropy: &dyn Entropy) -> Slot {
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

    /// The same slot in `older`, the set that a change was to displace when the power was cut: by its root key the store may be open
    /// still. `None` if the slot does not open there.
    pub fn step_back(self, older: &SlotSet) -> Option<Unlocked> {
        older.unlock_by(self.kek)
    }

    /// Compares the set with what the store's head says of it. Nothing may be served before this is [`HeadCheck::Current`].
    ///
    /// A change of the set writes the slot files first and the head after them. A power cut between the two leaves the set
    /// exactly one generation ahead; since the wrap proves that generation, that is our own work and is gone on with.
    ///
    /// # Errors
    /// [`StaleSlotSet`]: an older set was put back, or the store was.
    pub fn check_head(&self, generation: u64, digest: &SlotDigest) -> Result<HeadCheck, StaleSlotSet> {
        if self.generation == generation && self.digest == *digest || !host::in_force("slot-set-current") {
            Ok(HeadCheck::Current(SetIsCurrent(())))
        } else if generation.checked_add(1) == Some(self.generation) {
            Ok(HeadCheck::HeadIsBehind { generation: self.generation, digest: self.digest })
        } else {
            Err(StaleSlotSet { on_disk: self.generation, expected: generation })
        }
    }
}

/// What the head says of an authentic slot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadCheck {
    /// The same generation, the same bytes.
    Current(SetIsCurrent),
    /// Cut short between slot files and head: commit these to the head, heal the copies, and check again.
    HeadIsBehind {
        /// What the head must say.
        generation: u64,
        /// What the head must say.
        digest: SlotDigest,
    },
}

/// Proof that the slot set is the one which the store's head vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIsCurrent(());

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

/// A slot set of another store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the slot files belong to store {found}, not to store {expected}")]
pub struct ForeignStore {
    /// The store that the set names.
    pub found: StoreId,
    /// The store that is there.
    pub expected: StoreId,
}

impl ForeignStore {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "slots.a, slots.b and store.db must come from the same data directory; put back the ones that belong together"
    }
}

/// A demo store where production was asked for, or the reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store was made as {found}, and {expected} was asked for")]
pub struct ProfileMismatch {
    /// What the store was made as.
    pub found: Profile,
    /// What was asked for.
    pub expected: Profile,
}

impl ProfileMismatch {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.found {
            Profile::Demo => "a demo store is never used in production: name another data directory in `data_dir`",
            Profile::Production => {
                "`--demo` never touches a production store: leave it out, or name another `--data-dir`"
            }
        }
    }
}

/// The slot set is not the one that the store's head records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the slot files have generation {on_disk}, and the store expects generation {expected}")]
pub struct StaleSlotSet {
    /// Generation of the set on disk.
    pub on_disk: u64,
    /// Generation that the head records; if they are equal, the bytes differ.
    pub expected: u64,
}

impl StaleSlotSet {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        if self.on_disk < self.expected {
            "older slot files were put back; put back the newest ones, or unseal with the recovery key"
        } else if self.on_disk > self.expected {
            "the store was put back from an older copy without its slot files; put back both from one backup"
        } else {
            "the slot files were changed after the store recorded them; put back slots.a and slots.b from a backup"
        }
    }
}
