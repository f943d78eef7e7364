//! Making a slot set, and its next generation.

use host::Entropy;
use secret::crypto::NONCE_BYTES;
use secret::{Kek, RootKey};

use super::{FreshKek, MAX_SLOTS, NewSlot, SetHeader, Slot, SlotKek, SlotSet, WRAP_BYTES};
use crate::derive::SALT_BYTES;
use crate::slot::{SealMode, SlotId, SourceKind};

/// What the next generation changes besides its number.
#[derive(Debug, Default)]
pub struct Change {
    /// Slots that go.
    pub remove: Vec<SlotId>,
    /// Slots that come.
    pub add: Vec<NewSlot>,
    /// KEKs in the place of those of slots that stay.
    pub fresh: Vec<FreshKek>,
}

impl SlotSet {
    /// Generation 1: `root` wrapped for each of `slots`, with the KEKs for the barrier to keep.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(
        header: SetHeader,
        root: &RootKey,
        slots: Vec<NewSlot>,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Vec<SlotKek>), CreateError> {
        let bare =
            Self { store: header.store, generation: 1, profile: header.profile, mode: header.mode, slots: vec![] };
        bare.sealed(root, Vec::new(), slots, 1, entropy)
    }

    /// The next generation with the same slots: `root` (the old one or a new one) wrapped under the KEKs that the
    /// barrier kept, whether their sources are present or not.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn rewrap_all(&self, root: &RootKey, keks: &[SlotKek], entropy: &dyn Entropy) -> Result<Self, ChangeError> {
        Ok(self.change(root, keks, Change::default(), entropy)?.0)
    }

    /// The next generation: every remaining slot wrapped anew, for each binds the generation. Returns the KEKs that are
    /// new: of the added slots, and then the fresh ones. A KEK that does not open its slot as it is now is refused: it
    /// would lock the source out unnoticed.
    ///
    /// # Errors
    /// [`ChangeError`]; this set stays as it is.
    pub fn change(
        &self,
        root: &RootKey,
        keks: &[SlotKek],
        change: Change,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Vec<SlotKek>), ChangeError> {
        if let Some(missing) = change.remove.iter().find(|id| !self.slots.iter().any(|s| s.id == **id)) {
            return Err(ChangeError::NoSuchSlot { slot: *missing });
        }
        let mut kept = Vec::new();
        for slot in self.slots.iter().filter(|s| !change.remove.contains(&s.id)) {
            let kek = keks.iter().find(|k| k.slot == slot.id).ok_or(ChangeError::NoKek { slot: slot.id })?;
            self.open(slot, &kek.kek).ok_or(ChangeError::WrongKek { slot: slot.id })?;
            kept.push(match change.fresh.iter().find(|fresh| fresh.slot == slot.id) {
                Some(fresh) => (Slot { salt: fresh.salt, verifier: fresh.verifier, ..slot.clone() }, &fresh.kek),
                None => (slot.clone(), &kek.kek),
            });
        }
        let generation = self.generation.checked_add(1).ok_or(ChangeError::LastGeneration)?;
        // Not the number of a slot that goes now: what is kept under a slot's number stays that slot's until the change
        // is over.
        let first_new = self.slots.last().map_or(1, |s| u32::from(s.id.0) + 1);
        let bare = Self { generation, slots: Vec::new(), ..self.clone() };
        let (next, mut keks) = bare.sealed(root, kept, change.add, first_new, entropy)?;
        let stays = |fresh: &FreshKek| !change.remove.contains(&fresh.slot);
        keks.extend(change.fresh.into_iter().filter(stays).map(FreshKek::into_kek));
        Ok((next, keks))
    }

    /// Fills the slots of a set that has its header only; new ones are numbered from `first_new`.
    fn sealed(
        mut self,
        root: &RootKey,
        kept: Vec<(Slot, &Kek)>,
        new: Vec<NewSlot>,
        first_new: u32,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Vec<SlotKek>), CreateError> {
        let count = kept.len() + new.len();
        if count == 0 {
            return Err(CreateError::NoSlot);
        }
        if count > MAX_SLOTS {
            return Err(CreateError::TooMany { count });
        }
        // Shares beside a slot that opens by itself would be a way around it.
        if self.mode == SealMode::Shamir && count != 1 {
            return Err(CreateError::ShamirHasOneSlot { count });
        }
        if kept.iter().all(|(s, _)| s.public.kind() == SourceKind::Recovery)
            && new.iter().all(|s| s.public.kind() == SourceKind::Recovery)
        {
            return Err(CreateError::RecoveryAlone);
        }
        let mut keks = Vec::with_capacity(new.len());
        let mut slots: Vec<Slot> = kept.iter().map(|(s, _)| s.clone()).collect();
        for (id, NewSlot { public, ikm }) in (first_new..).zip(new) {
            let id = SlotId(u16::try_from(id).map_err(|_| CreateError::OutOfIds)?);
            let mut salt = [0; SALT_BYTES];
            entropy.fill(&mut salt);
            let keys = ikm.derive(&salt, &self.store, id);
            slots.push(Slot {
                id,
                public,
                salt,
                verifier: keys.verifier,
                nonce: [0; NONCE_BYTES],
                wrap: [0; WRAP_BYTES],
            });
            keks.push(SlotKek { slot: id, kek: keys.kek });
        }
        // The count of slots is in the header that each wrap binds: all slots stand before the first is wrapped.
        self.slots = slots;
        let wrapped = self
            .slots
            .iter()
            .zip(kept.iter().map(|(_, kek)| *kek).chain(keks.iter().map(|k| &k.kek)))
            .map(|(slot, kek)| self.wrap(slot, root, kek, entropy))
            .collect();
        self.slots = wrapped;
        Ok((self, keks))
    }
}

/// Why a set cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// A set that nothing opens.
    #[error("a slot set needs a slot")]
    NoSlot,
    /// Over [`MAX_SLOTS`].
    #[error("{count} key slots; at most {MAX_SLOTS} fit")]
    TooMany {
        /// How many were asked for.
        count: usize,
    },
    /// A store that opens by shares has its one slot.
    #[error("a store that opens by shares has one key slot, not {count}")]
    ShamirHasOneSlot {
        /// How many were asked for.
        count: usize,
    },
    /// A device whose only key is in somebody's drawer does not start unattended.
    #[error("a recovery key cannot be the only key of a store")]
    RecoveryAlone,
    /// 65535 slots have come and gone.
    #[error("the slot set has no number left for another slot")]
    OutOfIds,
}

/// Why there is no next generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A slot to be removed is not there.
    #[error("the slot set has no slot {slot}")]
    NoSuchSlot {
        /// The slot.
        slot: SlotId,
    },
    /// A slot that stays has no KEK among those given.
    #[error("the key of slot {slot} is missing: its source must release once more")]
    NoKek {
        /// The slot.
        slot: SlotId,
    },
    /// A KEK does not open its slot.
    #[error("the key kept for slot {slot} does not open it")]
    WrongKek {
        /// The slot.
        slot: SlotId,
    },
    /// The counter of generations has ended.
    #[error("the slot set has had its last generation")]
    LastGeneration,
    /// The changed set would break a rule.
    #[error(transparent)]
    Create(#[from] CreateError),
}
