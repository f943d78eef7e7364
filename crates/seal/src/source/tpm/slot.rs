//! What the slot of a TPM remembers, and the policy that follows from it. docs/formats.md has the layout.

use std::num::NonZeroU8;

use ::tpm::policy::PolicyDigest;
use ::tpm::{NvHandle, NvIndex, NvState, PcrSet, PcrValues, SealedObject};

use super::gate::{Gate, GateRegister, MOST_RELEASES};
use super::items::{self, Item, SlotKey, TAG_VERSION};
use super::state::State;
use crate::slot::{SlotPublic, SourceKind};
use crate::source::SourceError;

/// All that a release needs, and nothing that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TpmSlot {
    pub(super) key: SlotKey,
    pub(super) object: SealedObject,
    pub(super) policy: SlotPolicy,
}

/// What the TPM demands before it unseals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotPolicy {
    pub(super) state: State,
    pub(super) gate: Option<Gate>,
}

impl SlotPolicy {
    /// All registers that PolicyPCR looks at.
    pub(super) fn registers(&self) -> PcrSet {
        let fixed = self.state.registers();
        self.gate.map_or(fixed, |gate| fixed.union(gate.register.set()))
    }

    /// The values that those registers may have: one set for each state of the gate that allows a release.
    pub(super) fn values(&self) -> Vec<PcrValues> {
        let measured = &self.state.measured;
        self.gate.map_or_else(
            || vec![measured.clone()],
            |gate| {
                let number = gate.register.number();
                gate.allowed().into_iter().map(|value| measured.clone().with(number, value)).collect()
            },
        )
    }

    /// One digest for each of them.
    pub(super) fn branches(&self) -> Vec<PolicyDigest> {
        let (set, before) = (self.registers(), self.state.approved());
        if set.is_empty() {
            return vec![before];
        }
        // A missing value must not become the digest of no policy at all.
        let at =
            |values: &PcrValues| before.pcr(set, values).expect("the set is made of the registers that have values");
        self.values().iter().map(at).collect()
    }

    /// What a session has come to before anything is counted or proven.
    pub(super) fn digest_before_asking(&self) -> PolicyDigest {
        let branches = self.branches();
        let reached = match &branches[..] {
            [one] => *one,
            several => PolicyDigest::any_of(several),
        };
        self.state.conditions().into_iter().fold(reached, PolicyDigest::clock)
    }

    /// The index whose consent is wanted.
    pub(super) fn counter(&self) -> Option<(Gate, NvIndex)> {
        let gate = self.gate.filter(|_| host::in_force("tpm-counter-asked"))?;
        Some((gate, gate.index()?))
    }

    /// The digest that the object is sealed to: what [`super::TpmSource`] asserts, in its order.
    pub(super) fn digest(&self) -> PolicyDigest {
        let before = self.digest_before_asking();
        let asked = self.counter().map_or(before, |(_, index)| before.secret(&index.name(NvState::COUNTING)));
        if self.state.proves_pin() { asked.auth_value() } else { asked }
    }
}

impl TpmSlot {
    /// As it is kept.
    ///
    /// # Errors
    /// [`SourceError::Protocol`] if the TPM made an object larger than any that fits a slot.
    pub(super) fn write(&self, what: &str) -> Result<SlotPublic, SourceError> {
        let mut all: Vec<Item> = vec![
            (TAG_VERSION, vec![VERSION]),
            (TAG_PUBLIC, self.object.public.clone()),
            (TAG_PRIVATE, self.object.private.clone()),
        ];
        all.extend(self.key.items());
        all.extend(items::of_state(&self.policy.state));
        if let Some(gate) = &self.policy.gate {
            all.push((TAG_GATE, [&[gate.register.number()], &gate.base[..]].concat()));
            all.extend(gate.counter.map(|handle| (TAG_COUNTER, handle.number().to_be_bytes().to_vec())));
        }
        let limit = self.policy.gate.and_then(|gate| NonZeroU8::new(gate.limit));
        items::slot(SourceKind::Tpm, limit, all, what)
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
        let counter = match slot.item(TAG_COUNTER) {
            None => None,
            Some(number) => Some(NvHandle::from_number(u32::from_be_bytes(number.try_into().ok()?))?),
        };
        let gate = match (slot.item(TAG_GATE), slot.release_limit()) {
            (None, None) if counter.is_none() => None,
            (Some([pcr, base @ ..]), Some(limit)) if limit.get() <= MOST_RELEASES => {
                let register = GateRegister::new(*pcr).ok()?;
                Some(Gate { register, base: base.try_into().ok()?, limit: limit.get(), counter })
            }
            _ => return None,
        };
        let state = items::state(slot)?;
        if gate.is_some_and(|gate| state.measured_set().contains(gate.register.number())) {
            return None;
        }
        let object =
            SealedObject { public: slot.item(TAG_PUBLIC)?.to_vec(), private: slot.item(TAG_PRIVATE)?.to_vec() };
        Some(Self { key: SlotKey::of(slot)?, object, policy: SlotPolicy { state, gate } })
    }
}

const VERSION: u8 = 1;
const TAG_PUBLIC: u16 = 3;
const TAG_PRIVATE: u16 = 4;
const TAG_GATE: u16 = 6;
const TAG_COUNTER: u16 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::tpm::{AuthorityKey, KeptKey, Name};
    use proptest::prelude::*;

    use super::super::items::{TAG_AUTHORITY, TAG_KEPT, TAG_KEY, TAG_MEASURED, TAG_PIN, TAG_WINDOW};
    use super::*;

    /// A storage key's public area with this point.
    fn area(x: u8) -> Vec<u8> {
        let fixed = hex::decode("0023000b00030472000000060080004300100003001000 20".replace(' ', "")).unwrap();
        [&fixed[..], &[x; 32], &[0, 32], &[7; 32]].concat()
    }

    fn key(x: u8) -> SlotKey {
        let hash = secret::crypto::sha256(&[&area(x)]);
        let name = Name::from_bytes(&[&[0, 0x0b][..], &hash].concat()).unwrap();
        SlotKey { name, kept: Some(KeptKey::noted(&area(x), &name).unwrap()) }
    }

    fn slot() -> TpmSlot {
        TpmSlot {
            key: key(9),
            object: SealedObject { public: vec![1; 46], private: vec![2; 158] },
            policy: SlotPolicy {
                state: State {
                    measured: PcrValues::new([(7, [7; 32]), (11, [11; 32])]),
                    authority: Some(AuthorityKey::Rsa2048(Box::new([0xa5; 256]))),
                    window: Some(Duration::from_secs(90)),
                    pin: true,
                },
                gate: Some(Gate {
                    register: GateRegister::new(13).unwrap(),
                    base: [13; 32],
                    limit: 3,
                    counter: Some(NvHandle::drawn(5)),
                }),
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
        let bare = SlotPolicy { state: State::default(), gate: None };
        let point = AuthorityKey::P256(Box::new([3; 64]));
        let gate = slot().policy.gate.map(|gate| Gate { counter: None, ..gate });
        let other = SlotPolicy { state: State { authority: Some(point), ..slot().policy.state }, gate };
        let made = SlotKey { kept: None, ..key(9) };
        let slots = [slot(), TpmSlot { key: made, ..slot() }, TpmSlot { policy: bare, ..slot() }];
        for slot in slots.into_iter().chain([TpmSlot { policy: other, ..slot() }]) {
            assert_eq!(TpmSlot::read(&slot.write("tpm").unwrap()).unwrap(), slot);
        }
    }

    #[test]
    fn all_registers_fit_a_slot() {
        let measured = PcrValues::new((0..24).filter(|pcr| *pcr != 13).map(|pcr| (pcr, [pcr; 32])));
        let all = SlotPolicy { state: State { measured, ..slot().policy.state }, ..slot().policy };
        assert!(TpmSlot { policy: all, ..slot() }.write("tpm").is_ok());
    }

    #[test]
    fn items_that_are_none() {
        for tag in [TAG_VERSION, TAG_KEY, TAG_PUBLIC, TAG_PRIVATE, TAG_MEASURED, TAG_GATE] {
            assert_eq!(with(tag, None), None, "without item {tag}");
        }
        assert_eq!(with(TAG_VERSION, Some(&[2])), None);
        assert_eq!(with(TAG_KEY, Some(&[9; 34])), None, "no name of SHA-256");
        assert_eq!(with(TAG_KEPT, Some(&area(8))), None, "another key than is named");
        assert_eq!(with(TAG_KEPT, Some(&area(9)[1..])), None, "no storage key");
        assert!(with(TAG_KEPT, None).is_some(), "it is made then");
        assert_eq!(with(TAG_MEASURED, Some(&[0, 0, 0, 1])), None, "a register without its value");
        assert_eq!(with(TAG_MEASURED, Some(&[0; 5])), None, "a value without its register");
        assert_eq!(with(TAG_MEASURED, Some(&[1, 0, 0, 0])), None, "no such register");
        assert_eq!(with(TAG_GATE, Some(&[13; 32])), None, "a short base");
        assert_eq!(with(TAG_GATE, Some(&[16; 33])), None, "a gate that software resets");
        assert_eq!(with(TAG_GATE, Some(&[[7; 1].as_slice(), &[0; 32]].concat())), None, "a gate that is measured too");
        assert_eq!(with(TAG_COUNTER, Some(&[1, 0x80, 0xed])), None);
        assert_eq!(with(TAG_COUNTER, Some(&[1, 0x80, 0xee, 0])), None, "an index that is not ours");
        assert_eq!(with(TAG_AUTHORITY, Some(&[1; 256])), None, "a short modulus");
        assert_eq!(with(TAG_AUTHORITY, Some(&[3; 65])), None, "no such kind of key");
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
        let state = |change: fn(&mut State)| {
            let mut policy = base();
            change(&mut policy.state);
            policy
        };
        let gate = |change: fn(&mut Gate)| {
            let mut policy = base();
            policy.gate.as_mut().map(change).unwrap();
            policy
        };
        for other in [
            state(|s| s.measured = s.measured.clone().with(7, [8; 32])),
            state(|s| s.measured = s.measured.clone().with(8, [8; 32])),
            state(|s| s.authority = None),
            state(|s| s.authority = Some(AuthorityKey::Rsa2048(Box::new([0xa7; 256])))),
            state(|s| s.window = None),
            state(|s| s.window = Some(Duration::from_secs(91))),
            state(|s| s.pin = false),
            gate(|g| g.limit = 2),
            gate(|g| g.counter = None),
            gate(|g| g.counter = Some(NvHandle::drawn(6))),
            gate(|g| g.base = [0; 32]),
            gate(|g| g.register = GateRegister::new(12).unwrap()),
            SlotPolicy { gate: None, ..base() },
        ] {
            assert_ne!(other.digest(), digest, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_items_are_a_slot_or_none(items: Vec<Vec<u8>>, limit: u8) {
            let items: Vec<(u16, Vec<u8>)> = (1..).zip(items.into_iter().take(11)).collect();
            if let Ok(public) = SlotPublic::new(SourceKind::Tpm, NonZeroU8::new(limit), items) {
                let _ = TpmSlot::parse(&public);
            }
        }
    }
}
