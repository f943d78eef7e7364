//! What the slot of a TPM remembers, and the policy that follows from it. docs/formats.md has the layout.

use std::num::NonZeroU8;
use std::time::Duration;

use ::tpm::policy::{ClockCondition, PolicyDigest};
use ::tpm::{Name, PcrSet, PcrValues, SealedObject};

use super::gate::{Gate, GateRegister, MOST_RELEASES};
use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// All that a release needs, and nothing that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TpmSlot {
    /// The storage key, by name.
    pub(super) key: Name,
    pub(super) object: SealedObject,
    pub(super) policy: SlotPolicy,
}

/// What the TPM demands before it unseals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotPolicy {
    /// Registers and the values that they must have.
    pub(super) measured: PcrValues,
    pub(super) gate: Option<Gate>,
    pub(super) window: Option<Duration>,
    pub(super) pin: bool,
}

impl SlotPolicy {
    /// The registers that were measured.
    pub(super) fn measured_set(&self) -> PcrSet {
        PcrSet::new(self.measured.iter().map(|(pcr, _)| pcr)).unwrap_or_default()
    }

    /// All registers that the policy looks at.
    pub(super) fn registers(&self) -> PcrSet {
        let measured = if host::in_force("tpm-state-measured") { self.measured_set() } else { PcrSet::default() };
        self.gate.map_or(measured, |gate| measured.union(gate.register.set()))
    }

    /// One digest for each state of the gate that allows a release; one without a gate.
    pub(super) fn branches(&self) -> Vec<PolicyDigest> {
        let (set, fresh) = (self.registers(), PolicyDigest::default());
        // A missing value must not become the digest of no policy at all.
        let at =
            |values: &PcrValues| fresh.pcr(set, values).expect("the set is made of the registers that have values");
        match &self.gate {
            _ if set.is_empty() => vec![fresh],
            None => vec![at(&self.measured)],
            Some(gate) => {
                let number = gate.register.number();
                gate.allowed().into_iter().map(|value| at(&self.measured.clone().with(number, value))).collect()
            }
        }
    }

    /// The digest that the object is sealed to: what [`super::TpmSource`] asserts, in its order.
    pub(super) fn digest(&self) -> PolicyDigest {
        let branches = self.branches();
        let mut digest = match &branches[..] {
            [one] => *one,
            several => PolicyDigest::any_of(several),
        };
        for condition in self.conditions() {
            digest = digest.clock(condition);
        }
        if self.pin { digest.auth_value() } else { digest }
    }

    /// On the TPM's clocks. A resume begins the time anew, so that a window alone would open again.
    pub(super) fn conditions(&self) -> Vec<ClockCondition> {
        let Some(window) = self.window else { return Vec::new() };
        let ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let mut conditions = Vec::new();
        if host::in_force("tpm-window") {
            conditions.push(ClockCondition::TimeBelow(ms));
        }
        if host::in_force("tpm-never-resumed") {
            conditions.push(ClockCondition::NeverResumed);
        }
        conditions
    }
}

impl TpmSlot {
    /// As it is kept.
    ///
    /// # Errors
    /// [`SourceError::Protocol`] if the TPM made an object larger than any that fits a slot.
    pub(super) fn write(&self, what: &str) -> Result<SlotPublic, SourceError> {
        let policy = &self.policy;
        let mut measured = policy.measured_set().bits().to_be_bytes().to_vec();
        policy.measured.iter().for_each(|(_, value)| measured.extend_from_slice(value));
        let mut items = vec![
            (TAG_VERSION, vec![VERSION]),
            (TAG_KEY, self.key.as_bytes().to_vec()),
            (TAG_PUBLIC, self.object.public.clone()),
            (TAG_PRIVATE, self.object.private.clone()),
            (TAG_MEASURED, measured),
        ];
        if let Some(gate) = &policy.gate {
            items.push((TAG_GATE, [&[gate.register.number()], &gate.base[..]].concat()));
        }
        if let Some(window) = policy.window {
            items.push((TAG_WINDOW, u64::try_from(window.as_millis()).unwrap_or(u64::MAX).to_be_bytes().to_vec()));
        }
        if policy.pin {
            items.push((TAG_PIN, vec![1]));
        }
        let limit = policy.gate.and_then(|gate| NonZeroU8::new(gate.limit));
        SlotPublic::new(SourceKind::Tpm, limit, items)
            .map_err(|e| SourceError::Protocol { what: what.to_owned(), defect: e.to_string() })
    }

    /// What [`TpmSlot::write`] wrote; the disk is hostile, so every item is looked at.
    ///
    /// # Errors
    /// [`SourceError::OtherSlot`].
    pub(super) fn read(slot: &SlotPublic) -> Result<Self, SourceError> {
        Self::parse(slot).ok_or(SourceError::OtherSlot { kind: SourceKind::Tpm })
    }

    fn parse(slot: &SlotPublic) -> Option<Self> {
        if slot.kind() != SourceKind::Tpm || slot.item(TAG_VERSION)? != [VERSION] {
            return None;
        }
        let (bits, mut values) = slot.item(TAG_MEASURED)?.split_first_chunk()?;
        let mut measured = PcrValues::default();
        for pcr in PcrSet::from_bits(u32::from_be_bytes(*bits)).ok()?.iter() {
            let (value, rest) = values.split_first_chunk()?;
            measured = measured.with(pcr, *value);
            values = rest;
        }
        let gate = match (slot.item(TAG_GATE), slot.release_limit()) {
            (None, None) => None,
            (Some([pcr, base @ ..]), Some(limit)) if limit.get() <= MOST_RELEASES => {
                Some(Gate { register: GateRegister::new(*pcr).ok()?, base: base.try_into().ok()?, limit: limit.get() })
            }
            _ => return None,
        };
        let window = match slot.item(TAG_WINDOW) {
            None => None,
            Some(ms) => Some(Duration::from_millis(u64::from_be_bytes(ms.try_into().ok()?))),
        };
        let pin = match slot.item(TAG_PIN) {
            None => false,
            Some([1]) => true,
            Some(_) => return None,
        };
        let object =
            SealedObject { public: slot.item(TAG_PUBLIC)?.to_vec(), private: slot.item(TAG_PRIVATE)?.to_vec() };
        let key = Name::from_bytes(slot.item(TAG_KEY)?)?;
        values.is_empty().then_some(Self { key, object, policy: SlotPolicy { measured, gate, window, pin } })
    }
}

const VERSION: u8 = 1;
const TAG_VERSION: u16 = 1;
const TAG_KEY: u16 = 2;
const TAG_PUBLIC: u16 = 3;
const TAG_PRIVATE: u16 = 4;
const TAG_MEASURED: u16 = 5;
const TAG_GATE: u16 = 6;
const TAG_WINDOW: u16 = 7;
const TAG_PIN: u16 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot() -> TpmSlot {
        let name = [&[0, 0x0b][..], &[9; 32]].concat();
        TpmSlot {
            key: Name::from_bytes(&name).unwrap(),
            object: SealedObject { public: vec![1; 46], private: vec![2; 158] },
            policy: SlotPolicy {
                measured: PcrValues::new([(7, [7; 32]), (11, [11; 32])]),
                gate: Some(Gate { register: GateRegister::new(13).unwrap(), base: [13; 32], limit: 3 }),
                window: Some(Duration::from_secs(90)),
                pin: true,
            },
        }
    }

    /// The same items, one of them changed.
    fn with(tag: u16, value: Option<&[u8]>) -> Option<TpmSlot> {
        let public = slot().write("tpm").unwrap();
        let mut items = public.items().to_vec();
        items.retain(|(t, _)| *t != tag);
        items.extend(value.map(|v| (tag, v.to_vec())));
        items.sort();
        TpmSlot::parse(&SlotPublic::new(SourceKind::Tpm, public.release_limit(), items).unwrap())
    }

    #[test]
    fn reads_what_it_writes() {
        let policy = SlotPolicy { measured: PcrValues::default(), gate: None, window: None, pin: false };
        for slot in [slot(), TpmSlot { policy, ..slot() }] {
            assert_eq!(TpmSlot::read(&slot.write("tpm").unwrap()).unwrap(), slot);
        }
    }

    #[test]
    fn all_registers_fit_a_slot() {
        let all = SlotPolicy { measured: PcrValues::new((0..24).map(|pcr| (pcr, [pcr; 32]))), ..slot().policy };
        assert!(TpmSlot { policy: all, ..slot() }.write("tpm").is_ok());
    }

    #[test]
    fn items_that_are_none() {
        for tag in [TAG_VERSION, TAG_KEY, TAG_PUBLIC, TAG_PRIVATE, TAG_MEASURED, TAG_GATE] {
            assert_eq!(with(tag, None), None, "without item {tag}");
        }
        assert_eq!(with(TAG_VERSION, Some(&[2])), None);
        assert_eq!(with(TAG_KEY, Some(&[9; 34])), None, "no name of SHA-256");
        assert_eq!(with(TAG_MEASURED, Some(&[0, 0, 0, 1])), None, "a register without its value");
        assert_eq!(with(TAG_MEASURED, Some(&[0; 5])), None, "a value without its register");
        assert_eq!(with(TAG_MEASURED, Some(&[1, 0, 0, 0])), None, "no such register");
        assert_eq!(with(TAG_GATE, Some(&[13; 32])), None, "a short base");
        assert_eq!(with(TAG_GATE, Some(&[16; 33])), None, "a gate that software resets");
        assert_eq!(with(TAG_WINDOW, Some(&[0; 7])), None);
        assert_eq!(with(TAG_PIN, Some(&[2])), None);
        assert!(with(TAG_PIN, Some(&[1])).is_some());
        let public = slot().write("tpm").unwrap();
        for limit in [None, NonZeroU8::new(9)] {
            let other = SlotPublic::new(SourceKind::Tpm, limit, public.items().to_vec()).unwrap();
            assert_eq!(TpmSlot::parse(&other), None, "{limit:?}");
        }
    }

    #[test]
    fn every_part_of_a_policy_counts() {
        let digest = slot().policy.digest();
        let base = || slot().policy;
        let gate = base().gate.unwrap();
        for other in [
            SlotPolicy { measured: base().measured.with(7, [8; 32]), ..base() },
            SlotPolicy { measured: base().measured.with(8, [8; 32]), ..base() },
            SlotPolicy { gate: None, ..base() },
            SlotPolicy { gate: Some(Gate { limit: 2, ..gate }), ..base() },
            SlotPolicy { gate: Some(Gate { limit: 1, ..gate }), ..base() },
            SlotPolicy { gate: Some(Gate { base: [0; 32], ..gate }), ..base() },
            SlotPolicy { gate: Some(Gate { register: GateRegister::new(12).unwrap(), ..gate }), ..base() },
            SlotPolicy { window: None, ..base() },
            SlotPolicy { window: Some(Duration::from_secs(91)), ..base() },
            SlotPolicy { pin: false, ..base() },
        ] {
            assert_ne!(other.digest(), digest, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_items_are_a_slot_or_none(items: Vec<Vec<u8>>, limit: u8) {
            let items: Vec<(u16, Vec<u8>)> = (1..).zip(items.into_iter().take(9)).collect();
            if let Ok(public) = SlotPublic::new(SourceKind::Tpm, NonZeroU8::new(limit), items) {
                let _ = TpmSlot::parse(&public);
            }
        }
    }
}
