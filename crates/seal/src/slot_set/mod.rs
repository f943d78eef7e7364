//! The slot set: who can open the store, each slot the same root key wrapped for another source.
//!
//! ```text
//! header  magic 8 | version u16 | store id 16 | generation u64 | profile u8 | seal mode u8 | count u8
//! slot    id u16 | source u8 | release limit u8 | salt 32 | length u16 | public items | verifier 16 | nonce 12 | wrap 48
//! ...     (ids rising)
//! digest  SHA-256 of all before
//! ```
//! Numbers are big-endian. The wrap is AES-256-GCM under the slot's KEK; its associated data are the whole header and
//! the slot from id to verifier. So nothing that decides how the store opens can be changed on disk without the wrap
//! refusing. The digest is no protection, it tells bit rot (try the other copy) from a hand.

mod change;
mod current;
mod fresh;
#[cfg(test)]
mod tests;
mod unlock;
mod wire;

use std::fmt;

use host::Entropy;
use secret::crypto::{self, NONCE_BYTES};
use secret::{Kek, RootKey, Secret};

use crate::derive::{SALT_BYTES, VERIFIER_BYTES};
use crate::ikm::Ikm;
use crate::slot::{Profile, SealMode, SlotId, SlotPublic, SourceKind, StoreId};

pub use change::{Change, ChangeError, CreateError};
pub use current::{HeadCheck, SetIsCurrent, StaleSlotSet};
pub use fresh::FreshKek;
pub use unlock::{UnlockError, Unlocked};
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
}
