//! A source that does as it is told and remembers what it was asked.

use std::sync::{Condvar, MutexGuard};

use host::{Entropy, OsEntropy};
use secret::SecretBytes;

use super::super::super::PcrDiff;
use super::super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Away,
    /// Gives other octets.
    Lying,
    /// In another state than it was made in.
    Changed,
    WrongPin,
}

/// One device; each source made from it speaks to the same.
pub(super) struct Fake(Arc<Device>);

struct Device {
    kind: SourceKind,
    can: Capabilities,
    state: Mutex<State>,
    /// Held while it hangs.
    hangs: (Mutex<bool>, Condvar),
}

struct State {
    mood: Mood,
    octets: Vec<u8>,
    policy: Option<PolicyRequest>,
    own_limit: Option<std::num::NonZeroU8>,
    released: usize,
    closed: bool,
    beside: usize,
    predicted: usize,
    /// The kinds of the slots that were to stay, at each call.
    discarded: Vec<Vec<SourceKind>>,
}

impl Fake {
    fn new(kind: SourceKind, can: Capabilities) -> Self {
        let mut octets = vec![0; 32];
        OsEntropy.fill(&mut octets);
        let state = State {
            mood: Mood::Well,
            octets,
            policy: None,
            own_limit: None,
            released: 0,
            closed: false,
            beside: 0,
            predicted: 0,
            discarded: vec![],
        };
        Self(Arc::new(Device { kind, can, state: Mutex::new(state), hangs: (Mutex::new(false), Condvar::new()) }))
    }

    pub(super) fn tpm() -> Self {
        let can = Capabilities {
            device_bound: true,
            measured: true,
            most_releases_per_boot: 8,
            time_window: true,
            pin: true,
            ..Capabilities::default()
        };
        Self::new(SourceKind::Tpm, can)
    }

    pub(super) fn tang() -> Self {
        Self::new(SourceKind::Tang, Capabilities { needs_network: true, ..Capabilities::default() })
    }

    pub(super) fn card() -> Self {
        Self::new(SourceKind::Pkcs11, Capabilities { pin: true, ..Capabilities::default() })
    }

    pub(super) fn exec() -> Self {
        Self::new(SourceKind::Exec, Capabilities::default())
    }

    pub(super) fn credential() -> Self {
        Self::new(SourceKind::Credential, Capabilities::default())
    }

    pub(super) fn software() -> Self {
        Self::new(SourceKind::Software, Capabilities::default())
    }

    pub(super) fn part(&self) -> Part {
        Part::new(Box::new(Source(Arc::clone(&self.0))), Duration::from_secs(5))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    pub(super) fn becomes(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Counts to this in every new slot, whether or not it is asked to.
    pub(super) fn limits(&self, n: u8) {
        self.state().own_limit = std::num::NonZeroU8::new(n);
    }

    pub(super) fn octets(&self) -> Vec<u8> {
        self.state().octets.clone()
    }

    pub(super) fn gives(&self, octets: Vec<u8>) {
        self.state().octets = octets;
    }

    /// What it was provisioned under.
    pub(super) fn policy(&self) -> Option<PolicyRequest> {
        self.state().policy.clone()
    }

    /// How often it has released.
    pub(super) fn released(&self) -> usize {
        self.state().released
    }

    /// How often it was made beside another slot.
    pub(super) fn made_beside(&self) -> usize {
        self.state().beside
    }

    /// How often it was made for other values.
    pub(super) fn predicted(&self) -> usize {
        self.state().predicted
    }

    pub(super) fn discarded(&self) -> Vec<Vec<SourceKind>> {
        self.state().discarded.clone()
    }

    pub(super) fn reboots(&self) {
        let mut state = self.state();
        (state.released, state.closed) = (0, false);
    }

    /// It answers nobody until the value is dropped.
    pub(super) fn hang(&self) -> Hanging {
        *self.0.hangs.0.lock().unwrap() = true;
        Hanging(Arc::clone(&self.0))
    }
}

pub(super) struct Hanging(Arc<Device>);

impl Drop for Hanging {
    fn drop(&mut self) {
        *self.0.hangs.0.lock().unwrap() = false;
        self.0.hangs.1.notify_all();
    }
}

struct Source(Arc<Device>);

impl Source {
    /// A TPM's slot is for this value of register 7.
    fn public(&self, limit: Option<std::num::NonZeroU8>, value: u8) -> SlotPublic {
        let measured = (self.0.kind == SourceKind::Tpm).then(|| (5, [&[0, 0, 0, 0x80][..], &[value; 32]].concat()));
        let items = [(1, b"fake".to_vec())].into_iter().chain(measured).collect();
        SlotPublic::new(self.0.kind, limit, items).unwrap()
    }

    fn there(&self) -> Result<MutexGuard<'_, State>, SourceError> {
        let held = self.0.hangs.0.lock().unwrap();
        drop(self.0.hangs.1.wait_while(held, |hangs| *hangs).unwrap());
        let state = self.0.state.lock().unwrap();
        if state.mood == Mood::Away {
            return Err(SourceError::Unreachable { what: "a fake".into(), defect: "it is away".into() });
        }
        Ok(state)
    }
}

impl KeySource for Source {
    fn kind(&self) -> SourceKind {
        self.0.kind
    }

    fn capabilities(&self) -> Capabilities {
        self.0.can
    }

    fn probe(&mut self, _deadline: Deadline) -> Result<Evidence, SourceError> {
        self.there().map(|_| Evidence(vec![("fake", "it is there".into())]))
    }

    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        let mut evidence = self.probe(deadline)?;
        let (state, limit) = (self.there()?, slot.release_limit());
        if state.closed && limit.is_some() {
            return Err(SourceError::Exhausted { what: "a fake".into(), defect: "it was closed".into() });
        }
        let left = limit.map(|limit| limit.get().saturating_sub(u8::try_from(state.released).unwrap()));
        left.into_iter().for_each(|left| evidence.add_releases_left(left));
        Ok(evidence)
    }

    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        _deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(self.0.kind, &self.0.can)?;
        let mut state = self.there()?;
        state.policy = Some(policy.clone());
        let limit = policy.releases_per_boot.or(state.own_limit);
        let ikm = Ikm::new(SecretBytes::new(state.octets.clone()), None).unwrap();
        Ok(Provisioned { public: self.public(limit, 7), ikm })
    }

    fn predict(
        &mut self,
        slot: &SlotPublic,
        _values: &PcrValues,
        _auth: &dyn Auth,
        _deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        assert_eq!(self.0.kind, SourceKind::Tpm);
        let mut state = self.there()?;
        state.predicted += 1;
        let ikm = Ikm::new(SecretBytes::new(state.octets.clone()), None).unwrap();
        Ok(Provisioned { public: self.public(slot.release_limit(), 8), ikm })
    }

    fn provision_beside(
        &mut self,
        slot: &SlotPublic,
        _board: Board,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        assert_eq!(slot.kind(), self.0.kind);
        self.there()?.beside += 1;
        self.provision(policy, auth, deadline)
    }

    fn discard(
        &mut self,
        slot: &SlotPublic,
        kept: &[&SlotPublic],
        _auth: &dyn Auth,
        _deadline: Deadline,
    ) -> Result<(), SourceError> {
        assert_eq!(slot.kind(), self.0.kind);
        self.there()?.discarded.push(kept.iter().map(|slot| slot.kind()).collect());
        Ok(())
    }

    fn left_of(&mut self, _slot: &SlotPublic, _auth: &dyn Auth, _deadline: Deadline) -> Result<Left, SourceError> {
        let gone = self.0.kind == SourceKind::Tpm && !self.there()?.discarded.is_empty();
        Ok(if gone { Left::Nothing("an index is gone".into()) } else { Left::Copies("a fake".into()) })
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, _deadline: Deadline) -> Result<Released, SourceError> {
        let mut state = self.there()?;
        if slot.kind() != self.0.kind || slot.item(1) != Some(b"fake") {
            return Err(SourceError::OtherSlot { kind: self.0.kind });
        }
        let limit = slot.release_limit().map(|n| usize::from(n.get()));
        if state.closed || limit.is_some_and(|n| state.released >= n) {
            return Err(SourceError::Exhausted { what: "a fake".into(), defect: "used up".into() });
        }
        match state.mood {
            Mood::Changed => {
                let differs = vec![PcrDiff { pcr: 7, expected: [1; 32], found: [2; 32] }];
                return Err(SourceError::PolicyMismatch { differs });
            }
            Mood::WrongPin => return Err(SourceError::AuthFailed { what: "a fake".into(), tries_left: Some(2) }),
            Mood::Well | Mood::Away | Mood::Lying => {}
        }
        state.released += 1;
        let mut octets = state.octets.clone();
        if state.mood == Mood::Lying {
            octets[0] ^= 1;
        }
        let left = limit.map(|n| u8::try_from(n - state.released).unwrap());
        let ikm = Ikm::new(SecretBytes::new(octets), None).unwrap();
        Ok(Released { ikm, evidence: Evidence::default(), remaining_this_boot: left })
    }

    fn close(&mut self, slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        let mut state = self.there()?;
        if slot.release_limit().is_none() {
            return Ok(Closed::releases_on());
        }
        state.closed = true;
        Ok(Closed::until_reboot())
    }
}
