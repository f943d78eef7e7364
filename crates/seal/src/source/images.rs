//! Slots of one source for different images of the device: what they share, and what tells them apart.

use super::combined;
use super::tpm::{TpmNvSource, TpmSource, values_of};
use crate::slot::{SlotPublic, SourceKind};

/// Whether two slots are of one source and one policy, for other values of the same registers.
pub fn differ_in_values_alone(a: &SlotPublic, b: &SlotPublic) -> bool {
    match a.kind() {
        SourceKind::Tpm => TpmSource::differ_in_values_alone(a, b),
        SourceKind::TpmNv => TpmNvSource::differ_in_values_alone(a, b),
        SourceKind::All | SourceKind::Threshold => combined::differ_in_values_alone(a, b),
        _ => false,
    }
}

/// Whether a slot, or a part of it, is bound to what registers hold: then it may be made for another image.
pub fn measures_registers(slot: &SlotPublic) -> bool {
    combined::slot_and_parts(slot)
        .iter()
        .any(|part| values_of(part).is_some_and(|values| values.iter().next().is_some()))
}
