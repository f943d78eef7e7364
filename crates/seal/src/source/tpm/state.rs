//! The state of the device that a slot is bound to, and how a session shows that the device is in it.
//!
//! ```text
//! [PolicyAuthorize: the vendor's key approves of registers] ─ PolicyPCR: registers as they were ─ [clocks] ... [PIN]
//! ```
//! Both kinds of slot use it: an object that is sealed ([`super::TpmSource`]) and an index ([`super::TpmNvSource`]).

use std::time::Duration;

use ::tpm::policy::{ClockCondition, PolicyDigest};
use ::tpm::{AuthorityKey, PcrSet, PcrValues, Session, Tpm, TpmError};

use super::chip::Chip;
use super::signed::SignatureFile;
use crate::source::{PcrDiff, PolicyRequest, SourceError};

/// What must hold of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Registers and the values that they must have.
    pub(super) measured: PcrValues,
    /// Whoever may say, later, which values of other registers are good.
    pub(super) authority: Option<AuthorityKey>,
    pub(super) window: Option<Duration>,
    pub(super) pin: bool,
}

impl State {
    /// The state that a request comes to, on this device as it is now.
    pub(super) fn now(
        request: &PolicyRequest,
        authority: Option<AuthorityKey>,
        values: &PcrValues,
    ) -> Result<Self, SourceError> {
        let empty = |pcr: u8, why: &str| Err(SourceError::PolicyEmpty { defect: format!("PCR {pcr} {why}") });
        let mut measured = PcrValues::default();
        for pcr in request.pcrs.iter() {
            if matches!(pcr, 16 | 23) {
                return empty(pcr, "can be reset by software, to any state");
            }
            let Some(value) = values.value(pcr).copied() else { return empty(pcr, "has no known value") };
            if (value == [0; 32] || value == [0xff; 32]) && host::in_force("tpm-state-not-empty") {
                return empty(pcr, "was never extended: nothing is measured into it on this device");
            }
            measured = measured.with(pcr, value);
        }
        Ok(Self { measured, authority, window: request.window, pin: request.pin })
    }

    /// The registers whose values are fixed.
    pub(super) fn measured_set(&self) -> PcrSet {
        PcrSet::new(self.measured.iter().map(|(pcr, _)| pcr)).unwrap_or_default()
    }

    /// The fixed registers that the policy looks at.
    pub(super) fn registers(&self) -> PcrSet {
        if host::in_force("tpm-state-measured") { self.measured_set() } else { PcrSet::default() }
    }

    fn signer(&self) -> Option<&AuthorityKey> {
        self.authority.as_ref().filter(|_| host::in_force("tpm-state-signed"))
    }

    /// The digest after the vendor's approval; of a new session without.
    pub(super) fn approved(&self) -> PolicyDigest {
        self.signer().map_or_else(PolicyDigest::default, |key| PolicyDigest::authorized_by(&key.name()))
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

    /// Shows the vendor's approval of the registers as they are, where the state asks for one.
    pub(super) fn show_approval(
        &self,
        chip: &Chip,
        tpm: &mut Tpm,
        session: &Session,
        signatures: &SignatureFile,
    ) -> Result<(), SourceError> {
        let Some(key) = self.signer() else { return Ok(()) };
        let approvals = signatures.read(&*chip.disk)?.of(key);
        let looked_at = approvals.iter().fold(PcrSet::default(), |all, approval| all.union(approval.pcrs));
        let values = tpm.read_pcrs(looked_at).map_err(|e| chip.faults().tpm(e))?;
        let fits = |set| PolicyDigest::default().pcr(set, &values);
        let Some(approval) = approvals.iter().find(|a| fits(a.pcrs) == Some(a.policy)) else {
            return Err(signatures.none_fits(looked_at, approvals.len()));
        };
        tpm.policy_pcr(session, approval.pcrs, None)
            .and_then(|()| tpm.policy_authorize(session, &approval.policy, key, &approval.signature))
            .map_err(|e| match e.refusal() {
                Some(::tpm::Refusal::Signature | ::tpm::Refusal::Policy) => signatures.not_the_keys(&e),
                _ => chip.faults().tpm(e),
            })
    }

    /// Shows the clocks.
    pub(super) fn show_clocks(&self, tpm: &mut Tpm, session: &Session) -> Result<(), TpmError> {
        self.conditions().into_iter().try_for_each(|condition| tpm.policy_clock(session, condition))
    }

    /// In a trial session: the approval, taken for given.
    pub(super) fn try_approval(&self, tpm: &mut Tpm, session: &Session) -> Result<(), TpmError> {
        self.signer().map_or(Ok(()), |key| tpm.trial_authorize(session, key))
    }

    /// Which registers are not as they were.
    pub(super) fn differs(&self, chip: &Chip, tpm: &mut Tpm) -> SourceError {
        let measured = self.measured_set();
        let now = if measured.is_empty() { Ok(PcrValues::default()) } else { tpm.read_pcrs(measured) };
        let now = match now {
            Ok(now) => now,
            Err(e) => return chip.faults().tpm(e),
        };
        let differs = self.measured.iter().filter_map(|(pcr, expected)| {
            let (expected, found) = (*expected, *now.value(pcr)?);
            (expected != found).then_some(PcrDiff { pcr, expected, found })
        });
        SourceError::PolicyMismatch { differs: differs.collect() }
    }

    /// Whether the registers are as they were, by what the TPM says of them.
    pub(super) fn holds(&self, chip: &Chip, tpm: &mut Tpm) -> Result<(), SourceError> {
        match self.differs(chip, tpm) {
            SourceError::PolicyMismatch { differs } if differs.is_empty() => Ok(()),
            otherwise => Err(otherwise),
        }
    }

    /// For people.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let measured = self.measured_set();
        let mut facts = vec![("registers", if measured.is_empty() { "none".into() } else { measured.to_string() })];
        facts.extend(self.authority.as_ref().map(|key| ("approved by key", super::signed::shown(key))));
        facts
    }
}
