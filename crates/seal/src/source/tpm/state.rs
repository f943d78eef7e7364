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
        let measured = Self::bound(request.pcrs, values)?;
        Ok(Self { measured, authority, window: request.window, pin: request.pin })
    }

    /// The same of a device whose registers hold `values`.
    pub(super) fn with_values(&self, values: &PcrValues) -> Result<Self, SourceError> {
        Ok(Self { measured: Self::bound(self.measured_set(), values)?, ..self.clone() })
    }

    /// The same, whatever the registers hold.
    pub(super) fn without_values(&self) -> (PcrSet, Self) {
        (self.measured_set(), Self { measured: PcrValues::default(), ..self.clone() })
    }

    fn bound(pcrs: PcrSet, values: &PcrValues) -> Result<PcrValues, SourceError> {
        pcrs.iter().try_fold(PcrValues::default(), |measured, pcr| Ok(measured.with(pcr, Self::measured(pcr, values)?)))
    }

    /// The value of a register that says something of the device.
    pub(super) fn measured(pcr: u8, values: &PcrValues) -> Result<[u8; 32], SourceError> {
        let empty = |why: &str| Err(SourceError::PolicyEmpty { defect: format!("PCR {pcr} {why}") });
        if matches!(pcr, 16 | 23) {
            return empty("can be reset by software, to any state");
        }
        let Some(value) = values.value(pcr).copied() else { return empty("has no known value") };
        if (value == [0; 32] || value == [0xff; 32]) && host::in_force("tpm-state-not-empty") {
            return empty("was never extended: nothing is measured into it on this device");
        }
        Ok(value)
    }

    /// The registers whose values are fixed.
    pub(super) fn measured_set(&self) -> PcrSet {
        PcrSet::new(self.measured.iter().map(|(pcr, _)| pcr)).unwrap_or_default()
    }

    /// The fixed registers that the policy looks at.
    pub(super) fn registers(&self) -> PcrSet {
        if host::in_force("tpm-state-measured") { self.measured_set() } else { PcrSet::default() }
    }

    /// Whoever must have approved of the registers.
    pub(super) fn signer(&self) -> Option<&AuthorityKey> {
        self.authority.as_ref().filter(|_| host::in_force("tpm-state-signed"))
    }

    /// Whether the PIN is a part of a sealed object's policy, and not of edgekeep's manners alone.
    pub(super) fn proves_pin(&self) -> bool {
        self.pin && host::in_force("tpm-pin-proven")
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

    /// Shows the clocks.
    pub(super) fn show_clocks(&self, tpm: &mut Tpm, session: &Session) -> Result<(), TpmError> {
        self.conditions().into_iter().try_for_each(|condition| tpm.policy_clock(session, condition))
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
