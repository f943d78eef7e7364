//! What the slot of an index remembers, and the index that follows from it. docs/formats.md has the layout.

use std::num::NonZeroU8;

use ::tpm::policy::{PolicyCommand, PolicyDigest};
use ::tpm::{NvHandle, NvIndex};
use secret::crypto;

use super::super::items::{self, SlotKey, TAG_VERSION};
use super::super::state::State;
use crate::labels::TPM_NV_CHECK;
use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// What the slot remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NvSlot {
    pub(super) key: SlotKey,
    pub(super) handle: NvHandle,
    pub(super) state: State,
    /// Tells octets that somebody else has put there; of no use to whoever does not have the octets.
    pub(super) check: [u8; CHECK_BYTES],
    /// Whether it is locked after each release.
    pub(super) once: bool,
}

impl NvSlot {
    pub(super) fn index(&self) -> NvIndex {
        index(&self.state, self.handle, self.once)
    }

    pub(super) fn write(&self, what: &str) -> Result<SlotPublic, SourceError> {
        let mut all = vec![
            (TAG_VERSION, vec![VERSION]),
            (TAG_INDEX, self.handle.number().to_be_bytes().to_vec()),
            (TAG_CHECK, self.check.to_vec()),
        ];
        all.extend(self.key.items());
        all.extend(items::of_state(&self.state));
        items::slot(SourceKind::TpmNv, NonZeroU8::new(u8::from(self.once)), all, what)
    }

    /// What [`NvSlot::write`] wrote; the disk is hostile, so every item is looked at.
    pub(super) fn read(slot: &SlotPublic) -> Result<Self, SourceError> {
        Self::parse(slot).ok_or(SourceError::OtherSlot { kind: SourceKind::TpmNv })
    }

    fn parse(slot: &SlotPublic) -> Option<Self> {
        let once = match slot.release_limit().map(NonZeroU8::get) {
            None => false,
            Some(1) => true,
            Some(_) => return None,
        };
        if slot.kind() != SourceKind::TpmNv || slot.item(TAG_VERSION)? != [VERSION] {
            return None;
        }
        Some(Self {
            key: SlotKey::of(slot)?,
            handle: NvHandle::from_number(u32::from_be_bytes(slot.item(TAG_INDEX)?.try_into().ok()?))?,
            state: items::state(slot)?,
            check: slot.item(TAG_CHECK)?.try_into().ok()?,
            once,
        })
    }
}

/// The index of a state: by its policy it is read in that state, and locked in any.
pub(super) fn index(state: &State, handle: NvHandle, once: bool) -> NvIndex {
    NvIndex::secret(handle, policy(state), state.pin, once)
}

pub(super) fn policy(state: &State) -> PolicyDigest {
    PolicyDigest::any_of(&branches(state))
}

pub(super) fn branches(state: &State) -> [PolicyDigest; 2] {
    let before = state.approved();
    let registers = state.registers();
    let measured = if registers.is_empty() {
        before
    } else {
        before.pcr(registers, &state.measured).expect("the set is made of the registers that have values")
    };
    let read = state.conditions().into_iter().fold(measured, PolicyDigest::clock);
    let read = if state.pin { read.auth_value() } else { read };
    [read, PolicyDigest::default().command(PolicyCommand::NvReadLock)]
}

pub(super) fn check(octets: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    crypto::hkdf_sha256(&[], octets, TPM_NV_CHECK.text.as_bytes(), &mut check);
    check
}

const CHECK_BYTES: usize = TPM_NV_CHECK.bytes;

const VERSION: u8 = 1;
const TAG_INDEX: u16 = 10;
const TAG_CHECK: u16 = 11;
