//! The items of a slot that both kinds of TPM slot have: the storage key, and the state of the device.

use std::num::NonZeroU8;
use std::time::Duration;

use ::tpm::{AuthorityKey, KeptKey, Name, PcrSet, PcrValues};

use super::state::State;
use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// Tag and bytes.
pub(super) type Item = (u16, Vec<u8>);

/// Puts a slot together.
///
/// # Errors
/// [`SourceError::Protocol`] if the TPM made something larger than fits a slot.
pub(super) fn slot(
    kind: SourceKind,
    limit: Option<NonZeroU8>,
    mut items: Vec<Item>,
    what: &str,
) -> Result<SlotPublic, SourceError> {
    items.sort();
    SlotPublic::new(kind, limit, items)
        .map_err(|e| SourceError::Protocol { what: what.to_owned(), defect: e.to_string() })
}

/// The name of the storage key that the slot of a TPM hangs on, for people; `None` for a slot of another kind.
pub fn storage_key(slot: &SlotPublic) -> Option<String> {
    SlotKey::of(slot).filter(|_| slot.kind().is_of_tpm()).map(|key| key.name.to_string())
}

/// The values that the slot of a TPM is bound to; `None` for a slot of another kind.
pub(in crate::source) fn values_of(slot: &SlotPublic) -> Option<PcrValues> {
    state(slot).filter(|_| slot.kind().is_of_tpm()).map(|state| state.measured)
}

/// Refuses values that lack a register which a TPM's slot measures, or say nothing of it.
pub(in crate::source) fn lacking(slot: &SlotPublic, values: &PcrValues) -> Result<(), SourceError> {
    match state(slot) {
        Some(state) => state.with_values(values).map(drop),
        None => Err(SourceError::OtherSlot { kind: slot.kind() }),
    }
}

/// The items of a state.
pub(super) fn of_state(state: &State) -> Vec<Item> {
    let mut measured = state.measured_set().bits().to_be_bytes().to_vec();
    state.measured.iter().for_each(|(_, value)| measured.extend_from_slice(value));
    let mut items = vec![(TAG_MEASURED, measured)];
    if let Some(window) = state.window {
        items.push((TAG_WINDOW, u64::try_from(window.as_millis()).unwrap_or(u64::MAX).to_be_bytes().to_vec()));
    }
    if state.pin {
        items.push((TAG_PIN, vec![1]));
    }
    items.extend(state.authority.as_ref().map(|key| {
        let bytes = match key {
            AuthorityKey::Rsa2048(n) => [&[RSA_2048][..], &**n].concat(),
            AuthorityKey::P256(point) => [&[P_256][..], &**point].concat(),
        };
        (TAG_AUTHORITY, bytes)
    }));
    items
}

/// The state that a slot's items tell; `None` if they tell none.
pub(super) fn state(slot: &SlotPublic) -> Option<State> {
    let (bits, mut values) = slot.item(TAG_MEASURED)?.split_first_chunk()?;
    let mut measured = PcrValues::default();
    for pcr in PcrSet::from_bits(u32::from_be_bytes(*bits)).ok()?.iter() {
        let (value, rest) = values.split_first_chunk()?;
        measured = measured.with(pcr, *value);
        values = rest;
    }
    let window = match slot.item(TAG_WINDOW) {
        None => None,
        Some(ms) => Some(Duration::from_millis(u64::from_be_bytes(ms.try_into().ok()?))),
    };
    let pin = match slot.item(TAG_PIN) {
        None => false,
        Some([1]) => true,
        Some(_) => return None,
    };
    let authority = match slot.item(TAG_AUTHORITY) {
        None => None,
        Some([RSA_2048, n @ ..]) => Some(AuthorityKey::Rsa2048(n.to_vec().try_into().ok()?)),
        Some([P_256, point @ ..]) => Some(AuthorityKey::P256(point.to_vec().try_into().ok()?)),
        Some(_) => return None,
    };
    values.is_empty().then_some(State { measured, authority, window, pin })
}

/// The storage key that a slot is made under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotKey {
    /// What it is told by.
    pub(super) name: Name,
    /// Where the TPM was found to keep it.
    pub(super) kept: Option<KeptKey>,
}

impl SlotKey {
    pub(super) fn items(&self) -> Vec<Item> {
        let kept = self.kept.as_ref().map(|kept| (TAG_KEPT, kept.area().to_vec()));
        kept.into_iter().chain([(TAG_KEY, self.name.as_bytes().to_vec())]).collect()
    }

    /// The key of a slot; `None` if it names none, or has noted another than it names.
    pub(super) fn of(slot: &SlotPublic) -> Option<Self> {
        let name = Name::from_bytes(slot.item(TAG_KEY)?)?;
        let kept = match slot.item(TAG_KEPT) {
            None => None,
            Some(area) => Some(KeptKey::noted(area, &name)?),
        };
        Some(Self { name, kept })
    }
}

pub(super) const TAG_VERSION: u16 = 1;
pub(super) const TAG_KEY: u16 = 2;
pub(super) const TAG_MEASURED: u16 = 5;
pub(super) const TAG_WINDOW: u16 = 7;
pub(super) const TAG_PIN: u16 = 8;
pub(super) const TAG_AUTHORITY: u16 = 9;
pub(super) const TAG_KEPT: u16 = 12;

const RSA_2048: u8 = 1;
const P_256: u8 = 2;
